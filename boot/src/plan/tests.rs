#![allow(clippy::arithmetic_side_effects, clippy::single_range_in_vec_init, reason = "test code")]

use std::ops::Range;

use crate::kernels::{BZIMAGE_ADDRESS, BZIMAGE_INIT_SIZE, Elf, bzimage, note, patch, setup};
use crate::layout::{MAX_VIRTIO_DEVICES, VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE, ram_ranges};
use crate::{Image, Machine, MmioDevice, Plan, PlanError, Protocol, Request, plan};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// One request, easy to vary.
struct Case {
    kernel: Vec<u8>,
    protocol: Protocol,
    ram: Vec<Range<u64>>,
    vcpus: u8,
    devices: Vec<MmioDevice>,
    initrd_len: Option<u64>,
    cmdline: Vec<u8>,
}

impl Case {
    fn new(kernel: Vec<u8>) -> Self {
        Self {
            kernel,
            protocol: Protocol::Auto,
            ram: ram_ranges(128 * MIB),
            vcpus: 1,
            devices: vec![],
            initrd_len: None,
            cmdline: b"console=ttyS0".to_vec(),
        }
    }

    fn tiny() -> Self {
        Self::new(Elf::tiny().build())
    }

    fn ram(mut self, ram: &[Range<u64>]) -> Self {
        self.ram = ram.to_vec();
        self
    }

    fn memory(mut self, size: u64) -> Self {
        self.ram = ram_ranges(size);
        self
    }

    fn initrd(mut self, len: u64) -> Self {
        self.initrd_len = Some(len);
        self
    }

    fn cmdline(mut self, cmdline: Vec<u8>) -> Self {
        self.cmdline = cmdline;
        self
    }

    fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    fn devices(mut self, devices: &[(u64, u64, u32)]) -> Self {
        self.devices = devices.iter().map(|&(base, size, gsi)| MmioDevice { base, size, gsi }).collect();
        self
    }

    fn plan(&self) -> Result<Plan, PlanError> {
        let image = Image::parse(&self.kernel[..]).unwrap();
        plan(&Request {
            image: &image,
            protocol: self.protocol,
            initrd_len: self.initrd_len,
            cmdline: &self.cmdline,
            machine: Machine { ram: &self.ram, vcpus: self.vcpus, devices: &self.devices },
        })
    }

    fn refusal(&self) -> String {
        self.plan().unwrap_err().to_string()
    }
}

#[test]
fn memory_is_split_around_the_gap() {
    assert_eq!(ram_ranges(0), []);
    assert_eq!(ram_ranges(16 * MIB), [0..16 * MIB]);
    assert_eq!(ram_ranges(3 * GIB), [0..3 * GIB]);
    assert_eq!(ram_ranges(3 * GIB + 4096), [0..3 * GIB, 4 * GIB..4 * GIB + 4096]);
    assert_eq!(ram_ranges(64 * GIB), [0..3 * GIB, 4 * GIB..65 * GIB]);
    assert_eq!(ram_ranges(u64::MAX), [0..3 * GIB, 4 * GIB..u64::MAX]);
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let refusal = |ram: &[Range<u64>]| Case::tiny().ram(ram).refusal();
    assert_eq!(refusal(&[]), "the machine has no memory");
    assert_eq!(
        refusal(&[4096..16 * MIB]),
        "first memory range 0x1000..0x1000000 does not go from 0 to beyond 1 MiB"
    );
    assert_eq!(refusal(&[0..MIB]), "first memory range 0x0..0x100000 does not go from 0 to beyond 1 MiB");
    assert_eq!(
        refusal(&[0..16 * MIB, 32 * MIB..32 * MIB]),
        "memory range 1 at 0x2000000..0x2000000 is empty or not a whole number of pages"
    );
    assert_eq!(
        refusal(&[0..16 * MIB + 1]),
        "memory range 0 at 0x0..0x1000001 is empty or not a whole number of pages"
    );
    assert_eq!(
        refusal(&[0..16 * MIB, 8 * MIB..32 * MIB]),
        "memory range 1 begins at 0x800000, before the previous one ends (0x1000000)"
    );
    assert_eq!(
        refusal(&[0..3 * GIB + 4096]),
        "memory range 0 at 0x0..0xc0001000 lies in the device gap below 4 GiB"
    );
    assert_eq!(
        refusal(&[0..16 * MIB, 4 * GIB - 4096..5 * GIB]),
        "memory range 1 at 0xfffff000..0x140000000 lies in the device gap below 4 GiB"
    );
    let many: Vec<_> = (0..127).map(|i| i * 16 * MIB..i * 16 * MIB + 2 * MIB).collect();
    assert_eq!(refusal(&many), "the machine has 127 memory ranges, more than 126");
    assert!(Case::tiny().ram(&many[..126]).plan().is_ok());
}

#[test]
fn memory_of_every_size_boots() {
    let kernels = [Elf::tiny().build(), Elf::tiny().pvh(MIB).build(), Elf::at(16 * MIB, 40 * MIB).build()];
    for (size, fitting) in
        [(2 * MIB, 2), (16 * MIB, 2), (56 * MIB, 3), (3 * GIB, 3), (4 * GIB, 3), (64 * GIB, 3)]
    {
        let fits = |kernel: &&Vec<u8>| Case::new(kernel.to_vec()).memory(size).plan().is_ok();
        assert_eq!(kernels.iter().filter(fits).count(), fitting, "{size:#x} bytes");
    }
}

#[test]
fn vcpus_are_counted() {
    for (vcpus, good) in [(0, false), (1, true), (64, true), (65, false), (255, false)] {
        let result = Case { vcpus, ..Case::tiny() }.plan();
        assert_eq!(result.is_ok(), good, "{vcpus}");
    }
    assert_eq!(Case { vcpus: 65, ..Case::tiny() }.refusal(), "65 vCPUs are not between 1 and 64");
}

#[test]
fn devices_have_a_place_and_an_interrupt_each() {
    let all: Vec<_> = (0..MAX_VIRTIO_DEVICES)
        .map(|i| (VIRTIO_MMIO_BASE + u64::from(i) * VIRTIO_MMIO_SIZE, VIRTIO_MMIO_SIZE, 5 + i))
        .collect();
    assert!(Case::tiny().devices(&all).plan().is_ok());

    let refusal = |devices: &[(u64, u64, u32)]| Case::tiny().devices(devices).refusal();
    for (base, size) in [
        (0xbfff_f000, 0x1000),
        (0xd000_0800, 0x1000),
        (0xd000_0000, 0),
        (0xd000_0000, 0x200),
        (0xfebf_f000, 0x2000),
        (u64::MAX - 0xfff, 0x1000),
    ] {
        assert_eq!(
            refusal(&[(base, size, 5)]),
            format!(
                "device registers of {size:#x} bytes at {base:#x} are not whole pages inside 0xd0000000..0xfec00000"
            )
        );
    }
    for gsi in [0, 4, 29, u32::MAX] {
        assert_eq!(
            refusal(&[(0xd000_0000, 0x1000, gsi)]),
            format!("device at 0xd0000000 has GSI {gsi}, which is taken or not between 5 and 28")
        );
    }
    assert_eq!(
        refusal(&[(0xd000_0000, 0x1000, 5), (0xd000_1000, 0x1000, 5)]),
        "device at 0xd0001000 has GSI 5, which is taken or not between 5 and 28"
    );
    assert_eq!(
        refusal(&[(0xd000_1000, 0x1000, 5), (0xd000_0000, 0x2000, 6)]),
        "device registers at 0xd0000000 overlap those at 0xd0001000"
    );
}

#[test]
fn the_protocol_follows_the_kernel_unless_it_is_named() {
    let rip = |case: Case| case.plan().map(|plan| (plan.boot_cpu.rip, plan.boot_cpu.cr3 != 0));
    let both = || Case::new(Elf::tiny().pvh(MIB + 8).build());
    assert_eq!(rip(both()), Ok((MIB + 8, false)));
    assert_eq!(rip(both().protocol(Protocol::Pvh)), Ok((MIB + 8, false)));
    // What says that it is Linux is entered as Linux.
    let linux = || Case::new(Elf::tiny().pvh(MIB + 8).notes(4, note(b"Linux\0", 0x100, b"", 4)).build());
    assert_eq!(rip(linux()), Ok((MIB, true)));
    assert_eq!(rip(linux().protocol(Protocol::Pvh)), Ok((MIB + 8, false)));
    assert_eq!(rip(both().protocol(Protocol::Linux64)), Ok((MIB, true)));
    assert_eq!(rip(Case::tiny()), Ok((MIB, true)));
    assert_eq!(rip(Case::new(bzimage())), Ok((BZIMAGE_ADDRESS + 0x200, true)));
    assert_eq!(rip(Case::tiny().protocol(Protocol::Pvh)), Err(PlanError::NoPvhEntry));
    assert_eq!(rip(Case::new(bzimage()).protocol(Protocol::Pvh)), Err(PlanError::NoPvhEntry));
    assert_eq!(PlanError::NoPvhEntry.to_string(), "the kernel has no PVH entry");
}

#[test]
fn segments_lie_in_memory_above_one_mib() {
    let refusal = |elf: Elf, size| Case::new(elf.build()).memory(size).refusal();
    assert_eq!(
        refusal(Elf::at(MIB - 1, 0x1000), 16 * MIB),
        "kernel segment 0 at 0xfffff..0x100fff begins below 1 MiB"
    );
    assert_eq!(
        refusal(Elf::tiny().load(16 * MIB - 0x1000, 0x1001), 16 * MIB),
        "kernel segment 1 at 0xfff000..0x1000001 does not fit in guest memory"
    );
    assert_eq!(
        refusal(Elf::at(4 * GIB, 0x1000), 3 * GIB),
        "kernel segment 0 at 0x100000000..0x100001000 does not fit in guest memory"
    );
    assert!(Case::new(Elf::at(16 * MIB - 0x1000, 0x1000).build()).memory(16 * MIB).plan().is_ok());
}

#[test]
fn ranges_that_touch_are_one_memory() {
    let split = [0..2 * MIB, 2 * MIB..32 * MIB, 48 * MIB..64 * MIB];
    let case = |addr, len| Case::new(Elf::at(addr, len).build()).ram(&split);
    assert!(case(MIB, 31 * MIB).plan().is_ok());
    assert!(case(MIB, 31 * MIB + 1).plan().is_err());
    assert!(case(48 * MIB, 16 * MIB).plan().is_ok());
    assert!(case(40 * MIB, 16 * MIB).plan().is_err());
    // The initrd stays below the hole.
    assert_eq!(case(MIB, MIB).initrd(1).plan().unwrap().initrd, Some(32 * MIB - 4096));
}

#[test]
fn the_64_bit_entry_reaches_one_gib() {
    let case = |addr| Case::new(Elf::at(addr, 0x1000).build()).memory(2 * GIB);
    assert!(case(GIB - 0x1000).plan().is_ok());
    assert_eq!(
        case(GIB - 0xfff).refusal(),
        "kernel segment 0 at 0x3ffff001..0x40000001 is not below 0x40000000, where the page tables end"
    );
    let pvh = Elf::at(2 * GIB, 0x1000).pvh(2 * GIB).build();
    assert!(Case::new(pvh.clone()).memory(3 * GIB).plan().is_ok());
    assert!(Case::new(pvh).memory(3 * GIB).protocol(Protocol::Linux64).plan().is_err());
}

#[test]
fn a_32_bit_entry_does_not_reach_memory_above_the_gap() {
    let elf = Elf::tiny().pvh(MIB).load(4 * GIB, 0x1000).build();
    assert_eq!(
        Case::new(elf).memory(4 * GIB).refusal(),
        "kernel segment 1 at 0x100000000..0x100001000 is not below 0x100000000, where the page tables end"
    );
}

#[test]
fn the_entry_is_in_a_segment() {
    let case = |entry| Case::new(Elf { entry, ..Elf::tiny() }.load(4 * MIB, 0x1000).build());
    for entry in [MIB, MIB + 0xfff, 4 * MIB] {
        assert!(case(entry).plan().is_ok());
    }
    for entry in [0, MIB - 1, MIB + 0x1000, u64::MAX] {
        assert_eq!(case(entry).refusal(), format!("kernel entry {entry:#x} lies outside every segment"));
    }
    assert_eq!(
        Case::new(Elf::tiny().pvh(0x20).build()).plan(),
        Err(PlanError::EntryOutsideSegments { entry: 0x20 })
    );
}

#[test]
fn a_bzimage_has_room_to_unpack() {
    let end = BZIMAGE_ADDRESS + u64::from(BZIMAGE_INIT_SIZE);
    assert!(Case::new(bzimage()).memory(end).plan().is_ok());
    assert_eq!(
        Case::new(bzimage()).memory(end - 4096).refusal(),
        "kernel segment 0 at 0x1000000..0x1800000 does not fit in guest memory"
    );
}

#[test]
fn the_command_line_is_the_callers() {
    let case = |cmdline: &[u8]| Case::tiny().cmdline(cmdline.to_vec());
    let bytes = |case: &Case| {
        let plan = case.plan().unwrap();
        plan.blobs.into_iter().find(|blob| blob.guest_addr == 0x2_0000).unwrap().bytes
    };
    assert_eq!(bytes(&case(b"")), b"\0");
    assert_eq!(bytes(&case(b"quiet -- \xff")), b"quiet -- \xff\0");
    assert_eq!(bytes(&case(&[b'x'; 2047])).len(), 2048);
    assert_eq!(case(&[b'x'; 2048]).refusal(), "kernel command line of 2048 bytes is longer than 2047");
    assert_eq!(case(b"a\0b\0").refusal(), "kernel command line has a NUL byte at position 1");
}

#[test]
fn a_bzimage_says_how_long_a_command_line_it_reads() {
    let refusal = |limit: u32, len| {
        let mut file = bzimage();
        patch(&mut file, setup::CMDLINE_SIZE, &limit.to_le_bytes());
        Case::new(file).cmdline(vec![b'x'; len]).plan().err().map(|error| error.to_string())
    };
    assert_eq!(refusal(255, 255), None);
    assert_eq!(refusal(255, 256).unwrap(), "kernel command line of 256 bytes is longer than 255");
    assert_eq!(refusal(4095, 4095), None);
    assert_eq!(refusal(u32::MAX, 0xffff), None);
    assert_eq!(
        refusal(u32::MAX, 0x1_0000).unwrap(),
        "kernel command line of 65536 bytes is longer than 65535"
    );
}

#[test]
fn the_initrd_is_as_high_as_it_can_be() {
    let initrd = |case: Case, len| case.initrd(len).plan().map(|plan| plan.initrd.unwrap());
    assert_eq!(initrd(Case::tiny(), 1), Ok(128 * MIB - 4096));
    assert_eq!(initrd(Case::tiny(), 4097), Ok(128 * MIB - 8192));
    assert_eq!(initrd(Case::tiny().memory(3 * GIB), MIB), Ok(3 * GIB - MIB));
    assert_eq!(initrd(Case::tiny().memory(64 * GIB), MIB), Ok(3 * GIB - MIB));

    // Below the last byte a bzImage names.
    let limited = |last: u32| {
        let mut file = bzimage();
        patch(&mut file, setup::INITRD_ADDR_MAX, &last.to_le_bytes());
        Case::new(file).memory(4 * GIB)
    };
    assert_eq!(initrd(limited(0x7fff_ffff), MIB), Ok(2 * GIB - MIB));
    assert_eq!(initrd(limited(0x37ff_fffe), MIB), Ok(0x37ff_f000 - MIB));
    assert_eq!(initrd(limited(u32::MAX), MIB), Ok(3 * GIB - MIB));
    // A limit inside the kernel leaves only what is below it.
    assert_eq!(initrd(limited(0x100_0fff), MIB), Ok(15 * MIB));
    assert_eq!(
        limited(0).initrd(1).refusal(),
        "initrd of 1 bytes does not fit below 0x1 beside a kernel that ends at 0x1800000"
    );
}

#[test]
fn the_initrd_stays_clear_of_the_kernel() {
    // A kernel that ends 12.5 KiB before the end of memory and begins 8 KiB above 1 MiB.
    let case = |len| {
        let (start, end) = (MIB + 8192, 16 * MIB - 12_800);
        Case::new(Elf::at(start, end - start).build()).memory(16 * MIB).initrd(len)
    };
    assert_eq!(case(12_288).plan().unwrap().initrd, Some(16 * MIB - 12_288));
    assert_eq!(
        case(12_289).refusal(),
        "initrd of 12289 bytes does not fit below 0x1000000 beside a kernel that ends at 0xffce00"
    );
    // Between two segments, and below the lowest.
    let apart = |len| {
        let elf = Elf::at(4 * MIB + 1, 16).load(8 * MIB - 1, 8 * MIB + 1).build();
        Case::new(elf).memory(16 * MIB).initrd(len).plan().map(|plan| plan.initrd.unwrap())
    };
    assert_eq!(apart(1), Ok(8 * MIB - 8192));
    assert_eq!(apart(4 * MIB - 8192), Ok(4 * MIB + 4096));
    assert_eq!(
        apart(4 * MIB - 8191),
        Err(PlanError::InitrdDoesNotFit { len: 4 * MIB - 8191, limit: 16 * MIB, kernel_end: 16 * MIB })
    );
    assert_eq!(
        case(u64::MAX).plan().unwrap_err(),
        PlanError::InitrdDoesNotFit { len: u64::MAX, limit: 16 * MIB, kernel_end: 16 * MIB - 12_800 }
    );
}

#[test]
fn an_empty_initrd_is_refused() {
    assert_eq!(Case::tiny().initrd(0).refusal(), "the initrd is empty");
}
