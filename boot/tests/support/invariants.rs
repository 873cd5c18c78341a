//! What must hold of every plan, whatever the kernel file was.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used, reason = "test code")]

use firecrest_boot::{Format, Image, Machine, MmioDevice, Plan, Protocol, Request, layout, plan};

const PAGE: u64 = 4096;

/// Panics where `plan` breaks a promise made for `request`.
pub fn check(request: &Request<'_>, plan: &Plan) {
    let mut pieces: Vec<(u64, u64, &str)> = Vec::new();
    for segment in &plan.segments {
        assert!(segment.mem_len > 0 && segment.file_len <= segment.mem_len, "{segment:x?}");
        pieces.push((
            segment.guest_addr,
            segment.guest_addr.checked_add(segment.mem_len).unwrap(),
            "segment",
        ));
    }
    assert_eq!(plan.segments, request.image.segments());
    assert_eq!(plan.initrd.is_some(), request.initrd_len.is_some());
    if let (Some(start), Some(len)) = (plan.initrd, request.initrd_len) {
        assert_eq!(start % PAGE, 0, "initrd at {start:#x} is not page-aligned");
        pieces.push((start, start.checked_add(len.next_multiple_of(PAGE)).unwrap(), "initrd"));
    }
    for blob in &plan.blobs {
        assert!(!blob.bytes.is_empty());
        let end = blob.guest_addr + blob.bytes.len() as u64;
        assert!(end <= layout::HIGH_RAM_START, "blob at {:#x} ends at {end:#x}", blob.guest_addr);
        pieces.push((blob.guest_addr, end, "blob"));
    }
    // The stack's page is nobody else's.
    pieces.push((layout::BOOT_STACK & !(PAGE - 1), layout::BOOT_STACK, "stack"));

    pieces.sort_unstable();
    for (start, end, what) in &pieces {
        let inside = request.machine.ram.iter().any(|ram| ram.start <= *start && *end <= ram.end);
        assert!(inside, "{what} at {start:#x}..{end:#x} is not in RAM");
    }
    for pair in pieces.windows(2) {
        let [(first, first_end, first_what), (second, second_end, second_what)] = pair else { continue };
        assert!(
            first_end <= second,
            "{first_what} at {first:#x}..{first_end:#x} overlaps {second_what} at {second:#x}..{second_end:#x}"
        );
    }

    let entry = plan.boot_cpu.rip;
    let entered = |start: u64, end: u64| (start..end).contains(&entry);
    assert!(
        plan.segments.iter().any(|s| entered(s.guest_addr, s.guest_addr + s.mem_len)),
        "entry {entry:#x}"
    );
    if plan.boot_cpu.cr3 != 0 {
        assert!(plan.segments.iter().all(|s| s.guest_addr + s.mem_len <= layout::IDENTITY_MAP_END));
    } else {
        assert!(matches!(request.image.format(), Format::Elf { pvh_entry: Some(_), .. }));
    }
}

/// Parses `file`; where it is a kernel, plans its boot on several machines and checks every plan made.
/// Returns how many there were.
pub fn exercise(file: &[u8]) -> usize {
    let Ok(image) = Image::parse(file) else { return 0 };
    for segment in image.segments().iter().filter(|segment| segment.file_len != 0) {
        let end = segment.file_offset.checked_add(segment.file_len).unwrap();
        assert!(end <= file.len() as u64, "{segment:x?} outside a file of {} bytes", file.len());
    }
    let devices = [
        MmioDevice { base: layout::VIRTIO_MMIO_BASE, size: layout::VIRTIO_MMIO_SIZE, gsi: 5 },
        MmioDevice { base: layout::VIRTIO_MMIO_BASE + 0x1000, size: layout::VIRTIO_MMIO_SIZE, gsi: 23 },
    ];
    let mut plans = 0;
    for mib in [2, 16, 128, 5 << 10] {
        let ram = layout::ram_ranges(mib << 20);
        for protocol in [Protocol::Auto, Protocol::Linux64, Protocol::Pvh] {
            for initrd_len in [None, Some(1), Some(5 << 20)] {
                let machine = Machine { ram: &ram, vcpus: 2, devices: &devices };
                let request =
                    Request { image: &image, protocol, initrd_len, cmdline: b"console=ttyS0", machine };
                if let Ok(plan) = plan(&request) {
                    check(&request, &plan);
                    plans += 1;
                }
            }
        }
    }
    plans
}
