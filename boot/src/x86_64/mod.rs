//! x86-64: the two boot protocols, their tables, the first registers.
//!
//! Linux's 64-bit entry (`Documentation/arch/x86/boot.rst`, "64-bit boot protocol") wants long mode, an identity
//! map and a zero page; PVH (Xen's `docs/misc/pvh.pandoc`) wants 32-bit protected mode and a start info. Both
//! find the rest of the machine in the same ACPI tables.

mod acpi;
pub(crate) mod cpu;
pub mod layout;
mod memory_map;
mod paging;
mod pvh;
mod reset_vector;
mod zero_page;

#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::bytes::PAGE_SIZE;
use crate::image::{self, Kernel};
use crate::memory::Memory;
use crate::plan::Entry;
use crate::{Blob, CpuState, Machine, MmioDevice, PlanError, Protocol, Segment};
use layout::{
    CMDLINE, CMDLINE_MAX, CMDLINE_REGION, DEVICE_WINDOW, GDT, IDENTITY_MAP_END, IOAPIC_GSI_BASE, IOAPIC_PINS,
    MAX_VCPUS, MMIO_GAP, PAGE_TABLES, PVH_START_INFO, VIRTIO_GSI_FIRST, ZERO_PAGE,
};

/// Refuses vCPUs and devices that the tables could not describe.
pub(crate) fn check_machine(machine: &Machine<'_>) -> Result<(), PlanError> {
    if machine.vcpus == 0 || machine.vcpus > MAX_VCPUS {
        return Err(PlanError::VcpuCount { vcpus: machine.vcpus, limit: MAX_VCPUS });
    }
    // A GSI each, or an error: the loop ends after as many devices as there are pins.
    let mut earlier: Vec<MmioDevice> = Vec::with_capacity(machine.devices.len().min(IOAPIC_PINS as usize));
    for device in machine.devices {
        let MmioDevice { base, size, gsi } = *device;
        let end = base.checked_add(size).filter(|end| *end <= DEVICE_WINDOW.end);
        let whole = size != 0 && base.is_multiple_of(PAGE_SIZE) && size.is_multiple_of(PAGE_SIZE);
        let (true, true, Some(end)) = (whole, base >= DEVICE_WINDOW.start, end) else {
            let Range { start, end } = DEVICE_WINDOW;
            return Err(PlanError::DevicePlace { base, size, start, end });
        };
        let last = IOAPIC_GSI_BASE.saturating_add(IOAPIC_PINS).saturating_sub(1);
        if !(VIRTIO_GSI_FIRST..=last).contains(&gsi) || earlier.iter().any(|other| other.gsi == gsi) {
            let first = VIRTIO_GSI_FIRST;
            return Err(PlanError::DeviceGsi { base, gsi, first, last });
        }
        if let Some(other) =
            earlier.iter().find(|other| base < other.base.saturating_add(other.size) && other.base < end)
        {
            return Err(PlanError::DeviceOverlap { base, other: other.base });
        }
        earlier.push(*device);
    }
    Ok(())
}

/// Where `kernel` is entered by `protocol`.
pub(crate) fn entry(kernel: &Kernel, segments: &[Segment], protocol: Protocol) -> Result<Entry, PlanError> {
    match (kernel, protocol) {
        (Kernel::Elf { pvh_entry: Some(entry), linux: false, .. }, Protocol::Auto)
        | (Kernel::Elf { pvh_entry: Some(entry), .. }, Protocol::Pvh) => Ok(Entry::Pvh(*entry)),
        (_, Protocol::Pvh) => Err(PlanError::NoPvhEntry),
        (Kernel::Elf { entry, .. }, _) => Ok(Entry::Linux64(*entry)),
        (Kernel::BzImage { .. }, _) => {
            let load_address = segments.first().map_or(0, |segment| segment.guest_addr);
            Ok(Entry::Linux64(load_address.saturating_add(image::BZIMAGE_ENTRY_OFFSET)))
        }
    }
}

/// The first address that the kernel cannot reach when it is entered so.
pub(crate) fn mapped_end(entry: Entry) -> u64 {
    match entry {
        Entry::Linux64(_) => IDENTITY_MAP_END,
        // No paging: all that 32 bits reach.
        Entry::Pvh(_) => MMIO_GAP.end,
    }
}

/// The longest command line that `kernel` reads, in bytes without the NUL.
pub(crate) fn cmdline_limit(kernel: &Kernel) -> usize {
    match kernel {
        Kernel::Elf { .. } => CMDLINE_MAX.saturating_sub(1),
        Kernel::BzImage { header } => {
            let region = CMDLINE_REGION.saturating_sub(1);
            usize::try_from(header.cmdline_size).map_or(region, |limit| limit.min(region))
        }
    }
}

/// The end of the memory in which `kernel` looks for an initrd.
pub(crate) fn initrd_end(kernel: &Kernel) -> u64 {
    match kernel {
        Kernel::Elf { .. } => MMIO_GAP.start,
        // The header names the last byte an initrd may have.
        Kernel::BzImage { header } => u64::from(header.initrd_addr_max).saturating_add(1),
    }
}

/// A request that has been checked: all that the tables and registers are made of.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) entry: Entry,
    pub(crate) kernel: &'a Kernel,
    pub(crate) memory: Memory<'a>,
    pub(crate) machine: &'a Machine<'a>,
    pub(crate) initrd: Option<Range<u64>>,
}

impl Start<'_> {
    /// The boot protocol's tables and the boot CPU's registers. `cmdline` ends in a NUL.
    pub(crate) fn prepare(&self, cmdline: Vec<u8>) -> Result<(Vec<Blob>, CpuState), PlanError> {
        // The last byte is the NUL, which neither protocol counts.
        let cmdline_len = cmdline.len().saturating_sub(1);
        let acpi = Blob { guest_addr: layout::RSDP, bytes: acpi::tables(self.machine)? };
        let cmdline = Blob { guest_addr: CMDLINE, bytes: cmdline };
        let memory_map = memory_map::entries(self.memory);
        let (cpu, mut blobs) = match self.entry {
            Entry::Linux64(entry) => {
                let zero_page = zero_page::bytes(self.kernel, &memory_map, self.initrd.clone(), cmdline_len);
                let blobs = vec![
                    Blob { guest_addr: ZERO_PAGE, bytes: zero_page },
                    Blob { guest_addr: PAGE_TABLES, bytes: paging::identity_map() },
                ];
                (cpu::long_mode(entry), blobs)
            }
            Entry::Pvh(entry) => {
                let start_info = pvh::bytes(&memory_map, self.initrd.clone());
                (cpu::protected_mode(entry), vec![Blob { guest_addr: PVH_START_INFO, bytes: start_info }])
            }
        };
        let gdt = Blob { guest_addr: GDT, bytes: cpu::descriptor_tables(&cpu) };
        let reset_vector = Blob { guest_addr: layout::RESET_VECTOR, bytes: reset_vector::code() };
        blobs.extend([gdt, cmdline, acpi, reset_vector]);
        Ok((blobs, cpu))
    }
}
