//! For any bytes at all: parsing and planning end, do not panic, and keep the promises of every plan.

#![allow(clippy::arithmetic_side_effects, reason = "test code")]

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/kernels.rs"]
mod kernels;

use firecrest_boot::{Image, Machine, Request, layout, plan};
use proptest::collection::vec;
use proptest::prelude::*;

use kernels::{BZIMAGE_ADDRESS, Elf, bzimage, ehdr, note, phdr, setup};

/// Numbers that tend to break things, and any others.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        (0u32..64).prop_map(|bit| 1 << bit),
        (0u32..64).prop_map(|bit| (1 << bit) - 1),
        0u64..0x1_0000,
        0x10_0000u64..0x800_0000,
        any::<u64>(),
    ]
}

/// Overwrites at offsets below `len`, one to eight bytes each.
fn overwrites(len: usize) -> impl Strategy<Value = Vec<(usize, u64, usize)>> {
    vec((0..len, number(), 1usize..=8), 0..6)
}

fn apply(file: &mut [u8], overwrites: &[(usize, u64, usize)]) {
    for (offset, value, len) in overwrites {
        let bytes = value.to_le_bytes();
        file.iter_mut().skip(*offset).zip(bytes).take(*len).for_each(|(to, from)| *to = from);
    }
}

fn seed_elf() -> Vec<u8> {
    let mut notes = note(b"GNU\0", 3, &[0; 20], 4);
    notes.extend(note(b"Xen\0", 18, &0x10_0000u32.to_le_bytes(), 4));
    Elf::tiny().load(0x40_0000, 0x10_0000).load(0x20_0000, 16).notes(4, notes).build()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_bytes(file in vec(any::<u8>(), 0..2048)) {
        invariants::exercise(&file);
    }

    #[test]
    fn spoiled_elf(changes in overwrites(ehdr::LEN + 4 * phdr::LEN + 128), keep in 0usize..1024) {
        let mut file = seed_elf();
        apply(&mut file, &changes);
        file.truncate(keep);
        invariants::exercise(&file);
    }

    #[test]
    fn spoiled_bzimage(changes in overwrites(0x290 - 0x1f1), keep in 0x1f1usize..4096) {
        let mut file = bzimage();
        apply(&mut file[0x1f1..], &changes);
        file.truncate(keep);
        invariants::exercise(&file);
    }

    #[test]
    fn segments_anywhere(places in vec((number(), number()), 1..8), entry in number()) {
        let elf = Elf { entry, ..Elf::default() }.pvh(entry & 0xffff_ffff);
        let file = places.iter().fold(elf, |elf, (addr, len)| elf.load(*addr, *len)).build();
        invariants::exercise(&file);
    }

    #[test]
    fn initrds_of_any_size(
        first in 0x10_0000u64..0x200_0000, first_len in 16u64..0x100_0000,
        gap in 0u64..0x100_0000, second_len in 16u64..0x100_0000,
        memory in 1u64..0x8000, initrd in number(),
    ) {
        let kernel = Elf::at(first, first_len).load(first + first_len + gap, second_len);
        let image = Image::parse(&kernel.build()[..]).unwrap();
        let ram = layout::ram_ranges(memory << 12);
        let machine = Machine { ram: &ram, vcpus: 1, devices: &[] };
        let request = Request {
            image: &image, protocol: Default::default(), initrd_len: Some(initrd), cmdline: b"", machine,
        };
        if let Ok(plan) = plan(&request) {
            invariants::check(&request, &plan);
        }
    }

    #[test]
    fn bzimages_of_any_shape(address in number(), init_size in any::<u32>(), max in number()) {
        let mut file = bzimage();
        kernels::patch(&mut file, setup::PREF_ADDRESS, &(address & !0x1f_ffff).to_le_bytes());
        kernels::patch(&mut file, setup::INIT_SIZE, &(init_size >> 4).to_le_bytes());
        kernels::patch(&mut file, setup::INITRD_ADDR_MAX, &max.to_le_bytes()[..4]);
        invariants::exercise(&file);
    }
}

#[test]
fn the_seeds_are_kernels() {
    assert!(invariants::exercise(&seed_elf()) > 20);
    assert!(invariants::exercise(&bzimage()) > 5);
    assert_eq!(Image::parse(&bzimage()[..]).unwrap().segments()[0].guest_addr, BZIMAGE_ADDRESS);
}
