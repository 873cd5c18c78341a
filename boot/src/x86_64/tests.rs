#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use linux_loader::bootparam::boot_params;
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::ByteValued;

use super::layout::*;
use crate::bytes::structure;
use crate::kernels::{BZIMAGE_ADDRESS, Elf, bzimage, patch, setup};
use crate::{Image, Machine, Plan, Request, SegmentState, plan};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn plan_on(kernel: &[u8], memory: u64, initrd_len: Option<u64>) -> Plan {
    let image = Image::parse(kernel).unwrap();
    let ram = ram_ranges(memory);
    plan(&Request {
        image: &image,
        protocol: Default::default(),
        initrd_len,
        cmdline: b"quiet",
        machine: Machine { ram: &ram, vcpus: 1, devices: &[] },
    })
    .unwrap()
}

fn blob(plan: &Plan, guest_addr: u64) -> &[u8] {
    &plan.blobs.iter().find(|blob| blob.guest_addr == guest_addr).expect("a blob at this address").bytes
}

fn zero_page(plan: &Plan) -> boot_params {
    assert_eq!(blob(plan, ZERO_PAGE).len(), 4096);
    structure(blob(plan, ZERO_PAGE)).unwrap()
}

/// The e820 map as (address, size, type).
fn e820(page: &boot_params) -> Vec<(u64, u64, u32)> {
    let table = page.e820_table;
    table[..page.e820_entries.into()].iter().map(|entry| (entry.addr, entry.size, entry.r#type)).collect()
}

/// Entry `index` of the table at `table`.
fn table_entry(bytes: &[u8], table: u64, index: usize) -> u64 {
    let offset = usize::try_from(table - PAGE_TABLES).unwrap() + index * 8;
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

#[test]
fn fixed_places_are_apart() {
    let places = [
        (GDT, 0x20),
        (IDT, 8),
        (PVH_START_INFO, 0x1000),
        (ZERO_PAGE, 0x1000),
        (BOOT_STACK & !0xfff, 0x1000),
        (PAGE_TABLES, 0x3000),
        (CMDLINE, CMDLINE_REGION as u64),
        (LOW_RAM_END, 0),
        (RSDP, ACPI_REGION as u64),
        (RESET_VECTOR, 16),
        (HIGH_RAM_START, 0),
    ];
    for pair in places.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
    }
    let last_device = VIRTIO_MMIO_BASE + u64::from(MAX_VIRTIO_DEVICES) * VIRTIO_MMIO_SIZE;
    assert!(DEVICE_WINDOW.start <= VIRTIO_MMIO_BASE && last_device <= DEVICE_WINDOW.end);
}

#[test]
fn long_mode_state() {
    let cpu = plan_on(&Elf::tiny().build(), 16 * MIB, None).boot_cpu;
    assert_eq!((cpu.rip, cpu.rsp, cpu.rsi, cpu.rbx, cpu.rflags), (MIB, 0x8ff0, 0x7000, 0, 2));
    assert_eq!((cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer), (0x8000_0011, 0x9000, 0x20, 0x500));
    let flat = SegmentState { limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
    assert_eq!(cpu.cs, SegmentState { selector: 0x10, type_: 11, l: 1, ..flat });
    assert_eq!(cpu.ds, SegmentState { selector: 0x18, type_: 3, db: 1, ..flat });
    assert_eq!(
        cpu.tss,
        SegmentState { limit: 0x67, selector: 8, type_: 11, present: 1, ..Default::default() }
    );
    assert_eq!((cpu.gdt.base, cpu.gdt.limit, cpu.idt.base, cpu.idt.limit), (0x500, 31, 0x520, 7));
}

/// Both protocols: a kernel that finds no other way to restart jumps there.
#[test]
fn the_reset_vector_resets() {
    for kernel in [Elf::tiny(), Elf::tiny().pvh(MIB)] {
        let plan = plan_on(&kernel.build(), 16 * MIB, None);
        let code = blob(&plan, 0xf_fff0);
        assert_eq!(
            code[..6],
            [0xb0, 1, 0xba, 0x02, 0x06, 0xee],
            "mov $1, %al; mov $0x602, %dx; out %al, %dx"
        );
        assert_eq!(code[6..], [0xf4, 0xeb, 0xfd], "and then stays: hlt, and back to it");
    }
}

#[test]
fn protected_mode_state() {
    let cpu = plan_on(&Elf::tiny().pvh(MIB + 8).build(), 16 * MIB, None).boot_cpu;
    assert_eq!((cpu.rip, cpu.rsi, cpu.rbx, cpu.rflags), (MIB + 8, 0, 0x6000, 2));
    assert_eq!((cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer), (0x11, 0, 0, 0));
    assert_eq!((cpu.cs.l, cpu.cs.db, cpu.cs.limit, cpu.cs.base), (0, 1, u32::MAX, 0));
}

#[test]
fn descriptors_say_what_the_registers_hold() {
    let gdt = |kernel: Elf| {
        let plan = plan_on(&kernel.build(), 16 * MIB, None);
        let words = blob(&plan, GDT).chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        words.collect::<Vec<_>>()
    };
    let (tss, data) = (0x0000_8b00_0000_0067, 0x00cf_9300_0000_ffff);
    assert_eq!(gdt(Elf::tiny()), [0, tss, 0x00af_9b00_0000_ffff, data, 0]);
    assert_eq!(gdt(Elf::tiny().pvh(MIB)), [0, tss, 0x00cf_9b00_0000_ffff, data, 0]);
}

#[test]
fn page_tables_map_the_first_gib_to_itself() {
    let plan = plan_on(&Elf::tiny().build(), 16 * MIB, None);
    let bytes = blob(&plan, PAGE_TABLES);
    assert_eq!(bytes.len(), 3 * 4096);
    let walk = |address: u64| {
        let index = |level: u32| usize::try_from((address >> level) & 511).unwrap();
        let mut table = plan.boot_cpu.cr3;
        for level in [39, 30] {
            let entry = table_entry(bytes, table, index(level));
            assert_eq!(entry & 0xfff, 3);
            table = entry & !0xfff;
        }
        let page = table_entry(bytes, table, index(21));
        assert_eq!(page & 0x1f_ffff, 0x83);
        (page & !0x1f_ffff) | (address & 0x1f_ffff)
    };
    for address in [0, 0x7000, MIB, 2 * MIB, 0x1234_5678, GIB - 1] {
        assert_eq!(walk(address), address);
    }
    assert_eq!((table_entry(bytes, 0x9000, 1), table_entry(bytes, 0xa000, 1)), (0, 0));
}

#[test]
fn the_zero_page_of_an_elf() {
    let plan = plan_on(&Elf::tiny().build(), 16 * MIB, Some(5000));
    let page = zero_page(&plan);
    let header = page.hdr;
    assert_eq!({ header.boot_flag }, 0xaa55);
    assert_eq!({ header.header }.to_le_bytes(), *b"HdrS");
    assert_eq!(header.type_of_loader, 0xff);
    assert_eq!({ header.cmd_line_ptr }, 0x2_0000);
    assert_eq!({ header.cmdline_size }, 5);
    assert_eq!(u64::from(header.ramdisk_image), plan.initrd.unwrap());
    assert_eq!({ header.ramdisk_size }, 5000);
    assert_eq!({ page.acpi_rsdp_addr }, 0xe_0000);
    assert_eq!(page.sentinel, 0);
    assert_eq!(e820(&page), [(0, 0x9_fc00, 1), (0x9_fc00, 0x6_0400, 2), (MIB, 15 * MIB, 1)]);
    assert_eq!({ zero_page(&plan_on(&Elf::tiny().build(), 16 * MIB, None)).hdr.ramdisk_image }, 0);
}

#[test]
fn the_memory_map_goes_on_above_the_gap() {
    let map = |memory| e820(&zero_page(&plan_on(&Elf::tiny().build(), memory, None)));
    assert_eq!(map(3 * GIB)[2..], [(MIB, 3 * GIB - MIB, 1)]);
    assert_eq!(map(4 * GIB)[2..], [(MIB, 3 * GIB - MIB, 1), (4 * GIB, GIB, 1)]);
    assert_eq!(map(64 * GIB)[2..], [(MIB, 3 * GIB - MIB, 1), (4 * GIB, 61 * GIB, 1)]);
}

#[test]
fn the_zero_page_of_a_bzimage_has_its_own_header() {
    let mut file = bzimage();
    patch(&mut file, setup::SETUP_DATA, &0xdead_beefu64.to_le_bytes());
    patch(&mut file, setup::KERNEL_INFO, &0x1122u32.to_le_bytes());
    let header = zero_page(&plan_on(&file, 64 * MIB, Some(1))).hdr;
    assert_eq!((header.setup_sects, header.relocatable_kernel), (1, 1));
    assert_eq!({ header.pref_address }, BZIMAGE_ADDRESS);
    assert_eq!({ header.cmdline_size }, 2047);
    assert_eq!({ header.kernel_info_offset }, 0x1122);
    assert_eq!((header.type_of_loader, { header.cmd_line_ptr }), (0xff, 0x2_0000));
    assert_eq!({ header.ramdisk_image }, 64 * 1024 * 1024 - 4096);
    assert_eq!({ header.setup_data }, 0, "a list the kernel file cannot have made");

    // A header that ends before the last field we know of.
    patch(&mut file, setup::JUMP_LEN, &[0x66]);
    assert_eq!({ zero_page(&plan_on(&file, 64 * MIB, None)).hdr.kernel_info_offset }, 0);
}

#[test]
fn the_start_info_of_pvh() {
    for (memory, ram_above) in [(16 * MIB, None), (4 * GIB, Some((4 * GIB, GIB)))] {
        for initrd_len in [None, Some(4097)] {
            let plan = plan_on(&Elf::tiny().pvh(MIB).build(), memory, initrd_len);
            let page = blob(&plan, PVH_START_INFO);
            let at = |paddr: u64| &page[usize::try_from(paddr - PVH_START_INFO).unwrap()..];
            let info: hvm_start_info = structure(page).unwrap();
            assert_eq!((info.magic, info.version, info.flags), (0x336e_c578, 1, 0));
            assert_eq!((info.cmdline_paddr, info.rsdp_paddr), (0x2_0000, 0xe_0000));
            match initrd_len {
                None => assert_eq!((info.nr_modules, info.modlist_paddr), (0, 0)),
                Some(size) => {
                    let module: hvm_modlist_entry = structure(at(info.modlist_paddr)).unwrap();
                    assert_eq!(info.nr_modules, 1);
                    assert_eq!(
                        module,
                        hvm_modlist_entry { paddr: plan.initrd.unwrap(), size, ..Default::default() }
                    );
                }
            }
            let map: Vec<_> = at(info.memmap_paddr)
                .chunks(size_of::<hvm_memmap_table_entry>())
                .map(|bytes| hvm_memmap_table_entry::read_exact_from(bytes).unwrap())
                .map(|entry| (entry.addr, entry.size, entry.type_))
                .collect();
            assert_eq!(map.len(), usize::try_from(info.memmap_entries).unwrap());
            let low_end = memory.min(3 * GIB);
            assert_eq!(map[..3], [(0, 0x9_fc00, 1), (0x9_fc00, 0x6_0400, 2), (MIB, low_end - MIB, 1)]);
            assert_eq!(map.get(3).map(|&(addr, size, _)| (addr, size)), ram_above);
        }
    }
}

#[test]
fn the_longest_memory_map_fits_both_protocols() {
    let ram: Vec<_> = (0..MAX_RAM_RANGES as u64).map(|i| i * 4 * MIB..i * 4 * MIB + 2 * MIB).collect();
    let machine = Machine { ram: &ram, vcpus: 1, devices: &[] };
    for kernel in [Elf::tiny(), Elf::tiny().pvh(MIB)] {
        let image = Image::parse(&kernel.build()[..]).unwrap();
        let request = Request {
            image: &image,
            protocol: Default::default(),
            initrd_len: Some(1),
            cmdline: b"",
            machine,
        };
        let plan = plan(&request).unwrap();
        match plan.boot_cpu.cr3 {
            0 => assert!(blob(&plan, PVH_START_INFO).len() <= 4096),
            _ => assert_eq!(e820(&zero_page(&plan)).len(), 128),
        }
    }
}
