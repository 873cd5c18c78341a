//! CPUID as a guest sees it: what KVM supports, with the topology of this VM put in.
//!
//! The vCPUs are the cores of one package, one thread each, sharing the last-level cache; vCPU n has APIC id
//! n. What differs between vCPUs is the APIC id alone.
//!
//! Frequencies are given so that a guest calibrates nothing: leaf 0x15/0x16 (Intel), and KVM's own
//! 0x4000_0010 beside kvm-clock.
//!
//! Sources: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; `Documentation/virt/kvm/x86/cpuid.rst`.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Kvm, VcpuFd};

use crate::kvm::KvmError;

const VENDOR: u32 = 0;
const FEATURES: u32 = 1;
const CACHES_INTEL: u32 = 4;
const TOPOLOGY: u32 = 0xb;
const TSC: u32 = 0x15;
const FREQUENCY: u32 = 0x16;
const TOPOLOGY_V2: u32 = 0x1f;
const HYPERVISOR: u32 = 0x4000_0000;
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
const FEATURES_AMD: u32 = 0x8000_0001;
const SIZES_AMD: u32 = 0x8000_0008;
const CACHES_AMD: u32 = 0x8000_001d;
const TOPOLOGY_AMD: u32 = 0x8000_001e;
const TOPOLOGY_V2_AMD: u32 = 0x8000_0026;

/// Leaf 1 ECX.
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR_PRESENT: u32 = 1 << 31;
/// Leaf 1 EDX: the package has more than one logical processor.
const HTT: u32 = 1 << 28;
/// Leaf 0x8000_0001 ECX: the cores are cores, not threads.
const CMP_LEGACY: u32 = 1 << 1;

/// KVM's local APIC timer counts at 1 GHz.
const APIC_BUS_KHZ: u32 = 1_000_000;
/// Leaf 0x15 states the TSC as a multiple of a crystal; this one makes it exact to the kHz in 32 bits.
const CRYSTAL_HZ: u32 = 1_000_000;

/// "Genu", of GenuineIntel.
const GENUINE_INTEL_EBX: u32 = 0x756e_6547;

/// The CPUID of a VM, all but the APIC ids.
pub(crate) struct Template {
    entries: Vec<kvm_cpuid_entry2>,
}

impl Template {
    /// From what `kvm` supports, for `vcpus` vCPUs whose TSC runs at `tsc_khz` (where known).
    pub(crate) fn new(kvm: &Kvm, vcpus: u8, tsc_khz: Option<u32>) -> Result<Self, KvmError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(KvmError::operation("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(Self::from_entries(supported.as_slice().to_vec(), vcpus, tsc_khz))
    }

    fn from_entries(mut entries: Vec<kvm_cpuid_entry2>, vcpus: u8, tsc_khz: Option<u32>) -> Self {
        let intel = entries.iter().any(|entry| entry.function == VENDOR && entry.ebx == GENUINE_INTEL_EBX);
        entries.retain(|entry| {
            !matches!(entry.function, TOPOLOGY | TOPOLOGY_V2 | TOPOLOGY_V2_AMD | TSC | FREQUENCY)
        });
        for entry in &mut entries {
            set_topology(entry, vcpus);
            match entry.function {
                FEATURES => entry.ecx |= X2APIC | TSC_DEADLINE | HYPERVISOR_PRESENT,
                HYPERVISOR => entry.eax = entry.eax.max(HYPERVISOR_TIMING),
                VENDOR => entry.eax = entry.eax.max(if intel { FREQUENCY } else { TOPOLOGY }),
                _ => {}
            }
        }
        entries.extend(topology_leaves(TOPOLOGY, vcpus));
        if let Some(khz) = tsc_khz {
            entries
                .extend(frequency_leaves(khz).filter(|entry| intel || entry.function == HYPERVISOR_TIMING));
        }
        Self { entries }
    }

    /// Gives vCPU `index` its CPUID.
    pub(crate) fn apply(&self, vcpu: &VcpuFd, index: u8) -> Result<(), KvmError> {
        let entries = self.for_vcpu(index);
        let cpuid = CpuId::from_entries(&entries)
            .map_err(|_| KvmError::operation("KVM_SET_CPUID2")(kvm_ioctls::Error::new(libc::E2BIG)))?;
        vcpu.set_cpuid2(&cpuid).map_err(KvmError::operation("KVM_SET_CPUID2"))
    }

    fn for_vcpu(&self, index: u8) -> Vec<kvm_cpuid_entry2> {
        let id = u32::from(index);
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            match entry.function {
                FEATURES => entry.ebx = entry.ebx & 0x00ff_ffff | id << 24,
                TOPOLOGY => entry.edx = id,
                TOPOLOGY_AMD => {
                    entry.eax = id;
                    // Core id, one thread per core; node 0 of 1.
                    entry.ebx = id;
                    entry.ecx = 0;
                }
                _ => {}
            }
        }
        entries
    }
}

/// How many bits of an APIC id number the cores.
fn core_bits(vcpus: u8) -> u32 {
    u8::BITS.wrapping_sub(vcpus.saturating_sub(1).leading_zeros())
}

fn set_topology(entry: &mut kvm_cpuid_entry2, vcpus: u8) {
    let count = u32::from(vcpus);
    let last = count.saturating_sub(1);
    match entry.function {
        FEATURES => {
            entry.ebx = entry.ebx & 0xff00_ffff | count << 16;
            entry.edx = if vcpus > 1 { entry.edx | HTT } else { entry.edx & !HTT };
        }
        // Bits 26-31: cores in the package, less one. Bits 14-25: threads that share the cache, less one.
        CACHES_INTEL if entry.eax & 0x1f != 0 => {
            entry.eax = entry.eax & 0x3fff | sharers(entry.eax, last) << 14 | (last & 0x3f) << 26;
        }
        CACHES_AMD if entry.eax & 0x1f != 0 => {
            entry.eax = entry.eax & 0x3fff | sharers(entry.eax, last) << 14;
        }
        FEATURES_AMD => {
            entry.ecx = if vcpus > 1 { entry.ecx | CMP_LEGACY } else { entry.ecx & !CMP_LEGACY };
        }
        // Bits 0-7: threads in the package, less one. Bits 12-15: bits of an APIC id that number them.
        SIZES_AMD => entry.ecx = entry.ecx & 0xffff_0f00 | last | core_bits(vcpus) << 12,
        _ => {}
    }
}

/// A cache's sharers, less one: all cores for the third level, else the core alone.
fn sharers(eax: u32, last: u32) -> u32 {
    let level = eax >> 5 & 0b111;
    if level >= 3 { last } else { 0 }
}

/// The extended topology leaf: threads (one each), cores, and the end of the list.
fn topology_leaves(function: u32, vcpus: u8) -> [kvm_cpuid_entry2; 3] {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
    let level = |index, eax, ebx, kind: u32| kvm_cpuid_entry2 {
        function,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: index | kind,
        ..Default::default()
    };
    [level(0, 0, 1, THREADS), level(1, core_bits(vcpus), u32::from(vcpus), CORES), level(2, 0, 0, 0)]
}

fn frequency_leaves(tsc_khz: u32) -> impl Iterator<Item = kvm_cpuid_entry2> {
    let leaf = |function, [eax, ebx, ecx]: [u32; 3]| kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        ..Default::default()
    };
    let mhz = tsc_khz / 1000;
    [
        leaf(TSC, [CRYSTAL_HZ / 1000, tsc_khz, CRYSTAL_HZ]),
        leaf(FREQUENCY, [mhz, mhz, 100]),
        leaf(HYPERVISOR_TIMING, [tsc_khz, APIC_BUS_KHZ, 0]),
    ]
    .into_iter()
}

#[cfg(test)]
#[path = "cpuid_tests.rs"]
mod tests;
