#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "test code")]

use std::fs::File;
use std::io::{self, Write};

use crate::kernels::{
    BZIMAGE_ADDRESS, BZIMAGE_INIT_SIZE, BZIMAGE_PAYLOAD, Elf, bzimage, ehdr, note, patch, phdr, phdr_at,
    setup,
};
use crate::{Format, Image, ImageError, ReadAt, Segment};

fn parse(file: &[u8]) -> Image {
    Image::parse(file).unwrap()
}

/// What the error says when `file` is refused.
fn refusal(file: &[u8]) -> String {
    Image::parse(file).unwrap_err().to_string()
}

/// The refusal of the tiny ELF after `bytes` were written at `offset`.
fn spoiled_elf(offset: usize, bytes: &[u8]) -> String {
    let mut file = Elf::tiny().build();
    patch(&mut file, offset, bytes);
    refusal(&file)
}

/// The refusal of the bzImage after `bytes` were written at `offset`.
fn spoiled_bzimage(offset: usize, bytes: &[u8]) -> String {
    let mut file = bzimage();
    patch(&mut file, offset, bytes);
    refusal(&file)
}

fn pvh_entry(file: &[u8]) -> Option<u64> {
    match parse(file).format() {
        Format::Elf { pvh_entry, .. } => pvh_entry,
        other => panic!("{other:?} is no ELF"),
    }
}

#[test]
fn elf_segments_are_sorted_by_physical_address() {
    let image = parse(&Elf::at(0x40_0000, 0x2000).load(0x20_0000, 0x20_0000).load(0x10_0000, 16).build());
    let offset = (ehdr::LEN + 3 * phdr::LEN) as u64;
    let segment = |guest_addr, index: u64, mem_len| Segment {
        guest_addr,
        file_offset: offset + 16 * index,
        file_len: 16,
        mem_len,
    };
    let expected =
        [segment(0x10_0000, 2, 16), segment(0x20_0000, 1, 0x20_0000), segment(0x40_0000, 0, 0x2000)];
    assert_eq!(image.segments(), expected);
    assert_eq!(image.segments()[2].end(), 0x40_2000);
    assert_eq!(image.format(), Format::Elf { entry: 0x40_0000, pvh_entry: None });
}

#[test]
fn a_file_parses_like_its_bytes() {
    let bytes = Elf::tiny().pvh(0x10_0000).build();
    let path = std::env::temp_dir().join(format!("firecrest-boot-{}.elf", std::process::id()));
    File::create(&path).unwrap().write_all(&bytes).unwrap();
    let image = Image::parse(&File::open(&path).unwrap()).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(image.segments(), parse(&bytes).segments());
    assert_eq!(image.format(), parse(&bytes).format());
}

#[test]
fn position_independent_elf_is_a_kernel() {
    let mut file = Elf::tiny().build();
    patch(&mut file, ehdr::TYPE, &3u16.to_le_bytes());
    assert_eq!(parse(&file).segments().len(), 1);
}

#[test]
fn empty_and_foreign_files_are_refused() {
    assert_eq!(refusal(b""), "kernel file is empty");
    assert_eq!(refusal(b"#"), "kernel file is neither an ELF nor a bzImage: it starts with [23, 00, 00, 00]");
    assert_eq!(
        refusal(&[0x1f, 0x8b, 8, 0, 0]),
        "kernel file is neither an ELF nor a bzImage: it starts with [1f, 8b, 08, 00]"
    );
    // A boot sector is no kernel.
    let mut sector = vec![0; 1024];
    patch(&mut sector, setup::BOOT_FLAG, &[0x55, 0xaa]);
    assert!(matches!(Image::parse(&sector[..]), Err(ImageError::Unrecognized { first: [0, 0, 0, 0] })));
}

#[test]
fn truncated_elf_headers_are_refused() {
    let file = Elf::tiny().build();
    for len in [4, 6, 63] {
        assert_eq!(
            refusal(&file[..len]),
            format!("kernel file of {len} bytes is truncated: its ELF header needs 64")
        );
    }
    assert_eq!(
        refusal(&file[..64]),
        "kernel ELF's 1 program headers at offset 0x40 lie outside the file of 64 bytes"
    );
    assert_eq!(
        refusal(&file[..file.len() - 1]),
        "kernel segment 0: 16 bytes at offset 0x78 lie outside the file of 135 bytes"
    );
}

#[test]
fn elf_files_of_other_kinds_are_refused() {
    assert_eq!(spoiled_elf(ehdr::CLASS, &[1]), "kernel is a 32-bit ELF (class 1), not a 64-bit one");
    assert_eq!(spoiled_elf(ehdr::DATA, &[2]), "kernel ELF is not little-endian (data encoding 2)");
    assert_eq!(
        spoiled_elf(ehdr::MACHINE, &183u16.to_le_bytes()),
        "kernel is for aarch64 (ELF machine 183), not for x86-64"
    );
    assert_eq!(
        spoiled_elf(ehdr::MACHINE, &0x1234u16.to_le_bytes()),
        "kernel is for another machine (ELF machine 4660), not for x86-64"
    );
    assert_eq!(
        spoiled_elf(ehdr::TYPE, &1u16.to_le_bytes()),
        "kernel ELF has type 1, neither an executable (2) nor position-independent (3)"
    );
}

#[test]
fn bad_program_header_tables_are_refused() {
    assert_eq!(
        spoiled_elf(ehdr::PHENTSIZE, &32u16.to_le_bytes()),
        "kernel ELF has program headers of 32 bytes, not 56"
    );
    assert_eq!(
        spoiled_elf(ehdr::PHNUM, &257u16.to_le_bytes()),
        "kernel ELF has 257 program headers, more than 256"
    );
    assert_eq!(
        spoiled_elf(ehdr::PHOFF, &u64::MAX.to_le_bytes()),
        "kernel ELF's 1 program headers at offset 0xffffffffffffffff lie outside the file of 136 bytes"
    );
    assert_eq!(spoiled_elf(ehdr::PHNUM, &[0, 0]), "kernel ELF has no loadable segment");
    assert_eq!(
        spoiled_elf(phdr_at(0, phdr::TYPE), &6u32.to_le_bytes()),
        "kernel ELF has no loadable segment"
    );
}

#[test]
fn the_number_of_segments_is_bounded() {
    let segments = |count: u64| (1..count).fold(Elf::tiny(), |elf, i| elf.load(0x10_0000 + i * 0x1000, 16));
    assert_eq!(parse(&segments(64).build()).segments().len(), 64);
    assert_eq!(
        refusal(&segments(65).build()),
        "kernel ELF has more than 64 segments to load or to search for notes"
    );
    let notes = (0..65).fold(Elf::tiny(), |elf, _| elf.notes(4, note(b"GNU\0", 3, b"id", 4)));
    assert_eq!(
        refusal(&notes.build()),
        "kernel ELF has more than 64 segments to load or to search for notes"
    );
}

#[test]
fn bad_segments_are_refused() {
    assert_eq!(
        spoiled_elf(phdr_at(0, phdr::MEMSZ), &15u64.to_le_bytes()),
        "kernel segment 0 has 16 bytes in the file for 15 in memory"
    );
    assert_eq!(
        spoiled_elf(phdr_at(0, phdr::MEMSZ), &0u64.to_le_bytes()),
        "kernel segment 0 has 16 bytes in the file for 0 in memory"
    );
    assert_eq!(
        spoiled_elf(phdr_at(0, phdr::OFFSET), &u64::MAX.to_le_bytes()),
        "kernel segment 0: 16 bytes at offset 0xffffffffffffffff lie outside the file of 136 bytes"
    );
    assert_eq!(
        spoiled_elf(phdr_at(0, phdr::PADDR), &(u64::MAX - 0xffe).to_le_bytes()),
        "kernel segment 0: 4096 bytes at 0xfffffffffffff001 run past the end of the address space"
    );
    assert_eq!(
        refusal(&Elf::at(0x20_0000, 0x1001).load(0x20_1000, 0x1000).build()),
        "kernel segments at 0x200000..0x201001 and 0x201000..0x202000 overlap"
    );
    assert_eq!(
        refusal(&Elf::at(0x20_0000, 16).load(0x20_0000, 32).load(0x10_0000, 0x10_0000).build()),
        "kernel segments at 0x200000..0x200010 and 0x200000..0x200020 overlap"
    );
}

#[test]
fn empty_segments_are_left_out_and_memory_without_file_is_kept() {
    let mut file = Elf::tiny().load(0x20_0000, 0x1000).load(0x10_0000, 0).build();
    // The second has no bytes in the file, and then its offset means nothing; the third has none anywhere.
    patch(&mut file, phdr_at(1, phdr::FILESZ), &0u64.to_le_bytes());
    patch(&mut file, phdr_at(1, phdr::OFFSET), &u64::MAX.to_le_bytes());
    patch(&mut file, phdr_at(2, phdr::FILESZ), &0u64.to_le_bytes());
    let image = parse(&file);
    let places: Vec<_> = image.segments().iter().map(|s| (s.guest_addr, s.file_len, s.mem_len)).collect();
    assert_eq!(places, [(0x10_0000, 16, 0x1000), (0x20_0000, 0, 0x1000)]);
}

#[test]
fn the_pvh_note_is_found() {
    let tiny = Elf::tiny();
    let entry = 0x10_0008u32.to_le_bytes();
    assert_eq!(pvh_entry(&tiny.clone().pvh(0x10_0008).build()), Some(0x10_0008));
    assert_eq!(pvh_entry(&tiny.clone().notes(4, note(b"Xen\0", 18, &entry, 4)).build()), Some(0x10_0008));
    assert_eq!(pvh_entry(&tiny.clone().notes(8, note(b"Xen\0", 18, &entry, 8)).build()), Some(0x10_0008));

    // Behind notes of other owners and types, of odd sizes, in any of the note segments.
    let mut notes = note(b"GNU\0", 18, b"12345", 4);
    notes.extend(note(b"Xen\0", 1, &entry, 4));
    notes.extend(note(b"", 18, b"", 4));
    notes.extend(note(b"Xen", 18, b"", 4));
    assert_eq!(pvh_entry(&tiny.clone().notes(4, notes.clone()).build()), None);
    notes.extend(note(b"Xen\0", 18, &entry, 4));
    assert_eq!(pvh_entry(&tiny.clone().notes(4, notes.clone()).build()), Some(0x10_0008));
    let elf = tiny.notes(8, note(b"GNU\0", 5, &[0; 16], 8)).notes(4, notes);
    assert_eq!(pvh_entry(&elf.build()), Some(0x10_0008));
}

#[test]
fn linux_says_that_it_is_linux() {
    let is_linux = |elf: Elf| parse(&elf.build()).is_linux();
    assert!(parse(&bzimage()).is_linux());
    let tiny = Elf::tiny().pvh(0x10_0008);
    assert!(!is_linux(tiny.clone()));
    assert!(is_linux(tiny.clone().notes(4, note(b"Linux\0", 0x100, b"", 4))));
    assert!(!is_linux(tiny.clone().notes(4, note(b"Linu\0", 0x100, b"", 4))));
    // Behind another, and without the padding that would follow it.
    let mut notes = note(b"GNU\0", 3, b"12345", 4);
    notes.extend(note(b"Linux\0", 0x101, &[0], 4));
    notes.truncate(notes.len() - 3);
    assert!(is_linux(tiny.notes(4, notes)));
}

#[test]
fn notes_that_end_early_are_no_pvh_note() {
    let good = note(b"Xen\0", 18, &[0; 8], 4);
    for len in 1..good.len() {
        assert_eq!(pvh_entry(&Elf::tiny().notes(4, good[..len].to_vec()).build()), None, "{len} bytes");
    }
    let mut huge = good.clone();
    patch(&mut huge, 0, &u32::MAX.to_le_bytes());
    patch(&mut huge, 4, &u32::MAX.to_le_bytes());
    assert_eq!(pvh_entry(&Elf::tiny().notes(4, huge).build()), None);
}

#[test]
fn bad_pvh_notes_are_refused() {
    let with = |descriptor: &[u8]| Elf::tiny().notes(4, note(b"Xen\0", 18, descriptor, 4)).build();
    assert_eq!(refusal(&with(b"")), "kernel's PVH note has 0 bytes, neither 4 nor 8");
    assert_eq!(refusal(&with(b"12345")), "kernel's PVH note has 5 bytes, neither 4 nor 8");
    let high = 0x1_0000_0000u64.to_le_bytes();
    assert_eq!(refusal(&with(&high)), "kernel's PVH entry 0x100000000 is not below 4 GiB");

    let many = |len| Elf::tiny().notes(4, vec![0; len]).build();
    assert_eq!(pvh_entry(&many(64 << 10)), None);
    assert_eq!(refusal(&many((64 << 10) + 1)), "kernel note segment 1 has 65537 bytes, more than 65536");
    let mut file = Elf::tiny().pvh(0).build();
    patch(&mut file, phdr_at(1, phdr::OFFSET), &0x1000u64.to_le_bytes());
    assert_eq!(
        refusal(&file),
        "kernel note segment 1: 24 bytes at offset 0x1000 lie outside the file of 216 bytes"
    );
}

#[test]
fn bzimage_is_one_segment_where_it_wants_to_be() {
    let image = parse(&bzimage());
    let payload = BZIMAGE_PAYLOAD as u64;
    let segment = Segment {
        guest_addr: BZIMAGE_ADDRESS,
        file_offset: 1024,
        file_len: payload,
        mem_len: BZIMAGE_INIT_SIZE.into(),
    };
    assert_eq!(image.segments(), std::slice::from_ref(&segment));
    assert_eq!(image.format(), Format::BzImage { version: 0x20f });

    // A file larger than what the kernel says it needs still gets its memory.
    let mut file = bzimage();
    patch(&mut file, setup::INIT_SIZE, &1u32.to_le_bytes());
    assert_eq!(parse(&file).segments()[0].mem_len, payload);

    // No setup sectors mean four.
    let mut file = bzimage();
    patch(&mut file, setup::SETUP_SECTS, &[0]);
    file.splice(1024..1024, vec![0; 3 * 512]);
    assert_eq!(parse(&file).segments(), [Segment { file_offset: 5 * 512, ..segment }]);
}

#[test]
fn bad_bzimages_are_refused() {
    assert_eq!(
        spoiled_bzimage(setup::VERSION, &0x020bu16.to_le_bytes()),
        "bzImage has boot protocol 2.11, older than 2.12 (64-bit entry)"
    );
    assert_eq!(
        spoiled_bzimage(setup::XLOADFLAGS, &2u16.to_le_bytes()),
        "bzImage has no 64-bit entry (xloadflags 0x2 without XLF_KERNEL_64)"
    );
    assert_eq!(
        spoiled_bzimage(setup::LOADFLAGS, &[0x80]),
        "bzImage does not load high (loadflags 0x80 without LOADED_HIGH)"
    );
    for alignment in [0, 3, 0x400_0000u32] {
        assert_eq!(
            spoiled_bzimage(setup::KERNEL_ALIGNMENT, &alignment.to_le_bytes()),
            format!("bzImage prefers address 0x1000000, which its alignment {alignment:#x} does not allow")
        );
    }
    assert_eq!(
        spoiled_bzimage(setup::PREF_ADDRESS, &0xffff_ffff_ffe0_0000u64.to_le_bytes()),
        "kernel segment 0: 8388608 bytes at 0xffffffffffe00000 run past the end of the address space"
    );
}

#[test]
fn truncated_bzimages_are_refused() {
    let file = bzimage();
    assert_eq!(refusal(&file[..0x206]), "kernel file of 518 bytes is truncated: its setup header needs 620");
    assert_eq!(
        refusal(&file[..0x26c]),
        "kernel file of 620 bytes is truncated: its protected-mode code needs 3057"
    );
    // The last paragraph of the code may be incomplete.
    assert!(Image::parse(&file[..3057]).is_ok());
    assert_eq!(
        refusal(&file[..3056]),
        "kernel file of 3056 bytes is truncated: its protected-mode code needs 3057"
    );
    // A file that does not say how long its code is must at least reach its entry.
    let mut file = file;
    patch(&mut file, setup::SYSSIZE, &0u32.to_le_bytes());
    assert!(Image::parse(&file[..1024 + 0x201]).is_ok());
    assert_eq!(
        refusal(&file[..1024 + 0x200]),
        "kernel file of 1536 bytes is truncated: its protected-mode code needs 1537"
    );
}

#[test]
fn reading_failures_keep_their_cause() {
    struct Broken;
    impl ReadAt for Broken {
        fn len(&self) -> io::Result<u64> {
            Ok(4096)
        }
        fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let error = Image::parse(&Broken).unwrap_err();
    assert_eq!(error.to_string(), "reading the kernel file failed");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn bytes_are_read_at_offsets() {
    let bytes = &b"0123"[..];
    let mut buf = [0; 2];
    bytes.read_exact_at(&mut buf, 2).unwrap();
    assert_eq!(&buf, b"23");
    for offset in [3, 4, 5, u64::MAX] {
        assert_eq!(bytes.read_exact_at(&mut buf, offset).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
    assert!(!ReadAt::is_empty(bytes).unwrap());
    assert!(ReadAt::is_empty(&b""[..]).unwrap());
}
