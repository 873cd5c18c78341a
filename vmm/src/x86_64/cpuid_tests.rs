use super::*;

const AMD: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];
const INTEL: [u32; 3] = [GENUINE_INTEL_EBX, 0x6c65_746e, 0x4965_6e69];

fn leaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
}

fn supported([ebx, ecx, edx]: [u32; 3]) -> Vec<kvm_cpuid_entry2> {
    vec![
        leaf(0, 0, [0x10, ebx, ecx, edx]),
        leaf(1, 0, [0, 0x0a0b_0c0d, 0, 0]),
        leaf(4, 0, [1 | 1 << 5 | 0xfff << 14 | 0x3f << 26, 0, 0, 0]),
        leaf(4, 3, [3 | 3 << 5, 0, 0, 0]),
        leaf(4, 4, [0, 0, 0, 0]),
        leaf(0xb, 0, [9, 9, 9, 9]),
        leaf(0x1f, 0, [9, 9, 9, 9]),
        leaf(0x4000_0000, 0, [0x4000_0001, 0, 0, 0]),
        leaf(0x8000_0001, 0, [0, 0, 0, 0]),
        leaf(0x8000_0008, 0, [0, 0, 0x1_f0ff, 0]),
        leaf(0x8000_001d, 3, [3 | 3 << 5, 0, 0, 0]),
        leaf(0x8000_001e, 0, [7, 0x0107, 7, 0]),
        leaf(0x8000_0026, 0, [9, 9, 9, 9]),
    ]
}

fn cpuid(vendor: [u32; 3], vcpus: u8, index: u8) -> impl Fn(u32, u32) -> [u32; 4] {
    let entries = Template::from_entries(supported(vendor), vcpus, Some(2_445_432)).for_vcpu(index);
    move |function, index| {
        let found: Vec<_> = entries.iter().filter(|e| (e.function, e.index) == (function, index)).collect();
        assert!(found.len() <= 1, "{function:#x}.{index} stands once");
        found.first().map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
    }
}

#[test]
fn each_vcpu_has_its_apic_id() {
    for index in [0, 1, 63] {
        let get = cpuid(AMD, 64, index);
        let id = u32::from(index);
        assert_eq!(get(1, 0)[1], id << 24 | 64 << 16 | 0x0c0d);
        assert!((0..3).all(|level| get(0xb, level)[3] == id));
        assert_eq!(get(0x8000_001e, 0), [id, id, 0, 0], "core id, one thread a core, one node");
    }
}

#[test]
fn the_vcpus_are_cores_of_one_package() {
    for (vcpus, bits) in [(1u8, 0), (2, 1), (3, 2), (4, 2), (5, 3), (33, 6), (64, 6)] {
        let get = cpuid(INTEL, vcpus, 0);
        let count = u32::from(vcpus);
        assert_eq!(get(0xb, 0)[..3], [0, 1, 0x100], "one thread a core");
        assert_eq!(get(0xb, 1)[..3], [bits, count, 0x201]);
        assert_eq!(get(0xb, 2)[..3], [0, 0, 2]);
        assert_eq!(get(0x1f, 0), [0; 4], "one description, not two");
        assert_eq!(get(0x8000_0026, 0), [0; 4]);
        assert_eq!(get(0x8000_0008, 0)[2], 0x1_0000 | bits << 12 | (count - 1), "{vcpus}");
        assert_eq!(get(1, 0)[3] >> 28 & 1, u32::from(vcpus > 1));
        assert_eq!(get(0x8000_0001, 0)[2] >> 1 & 1, u32::from(vcpus > 1));
    }
}

#[test]
fn the_last_level_cache_is_shared_and_no_other() {
    let get = cpuid(INTEL, 4, 0);
    assert_eq!(get(4, 0)[0], 1 | 1 << 5 | 3 << 26);
    assert_eq!(get(4, 3)[0], 3 | 3 << 5 | 3 << 14 | 3 << 26);
    assert_eq!(get(4, 4)[0], 0, "the end of the list stays its end");
    assert_eq!(get(0x8000_001d, 3)[0], 3 | 3 << 5 | 3 << 14);
}

#[test]
fn the_guest_calibrates_nothing() {
    let get = cpuid(INTEL, 1, 0);
    assert_eq!(get(1, 0)[2], X2APIC | TSC_DEADLINE | HYPERVISOR_PRESENT);
    let [denominator, numerator, crystal, _] = get(0x15, 0);
    let hz = u64::from(crystal) * u64::from(numerator) / u64::from(denominator);
    assert_eq!(hz, 2_445_432_000);
    let crystal_khz = crystal / 1000;
    assert!(crystal_khz.checked_mul(numerator).is_some(), "Linux multiplies these in 32 bits");
    assert_eq!(get(0x16, 0)[0], 2445);
    assert_eq!(get(0, 0)[0], 0x16);
    assert_eq!(get(0x4000_0000, 0)[0], 0x4000_0010);
    assert_eq!(get(0x4000_0010, 0)[..2], [2_445_432, 1_000_000]);
    let amd = cpuid(AMD, 1, 0);
    assert_eq!(amd(0x15, 0), [0; 4], "no such leaf on AMD");
    assert_eq!(amd(0, 0)[0], 0x10);
    assert_eq!(amd(0x4000_0010, 0)[0], 2_445_432);
}
