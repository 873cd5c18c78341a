#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use std::io::ErrorKind;
use std::process::Command;

use super::super::layout::{MAX_VIRTIO_DEVICES, RSDP, VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE};
use super::tables;
use crate::{Machine, MmioDevice};

fn devices(count: u32) -> Vec<MmioDevice> {
    let device = |i| MmioDevice {
        base: VIRTIO_MMIO_BASE + u64::from(i) * VIRTIO_MMIO_SIZE,
        size: VIRTIO_MMIO_SIZE,
        gsi: 5 + i,
    };
    (0..count).map(device).collect()
}

fn region(vcpus: u8, devices: &[MmioDevice]) -> Vec<u8> {
    let ram = crate::layout::ram_ranges(1 << 27);
    tables(&Machine { ram: &ram, vcpus, devices }).unwrap()
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The table at guest address `address`, its length and checksum checked.
fn table(region: &[u8], address: u64) -> &[u8] {
    let bytes = &region[usize::try_from(address - RSDP).unwrap()..];
    let table = &bytes[..u32_at(bytes, 4).try_into().unwrap()];
    assert_eq!(sum(table), 0, "checksum of {:?}", table[..4].escape_ascii().to_string());
    assert_eq!(&table[10..16], b"FCREST");
    table
}

/// FADT, MADT and DSDT, found as a guest finds them.
fn walk(region: &[u8]) -> [&[u8]; 3] {
    assert_eq!(&region[..8], b"RSD PTR ");
    assert_eq!(&region[9..16], b"FCREST\x02");
    assert_eq!(u32_at(region, 20), 36);
    assert_eq!((sum(&region[..20]), sum(&region[..36])), (0, 0));
    let xsdt = table(region, u64_at(region, 24));
    assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 36 + 16));
    let (fadt, madt) = (table(region, u64_at(xsdt, 36)), table(region, u64_at(xsdt, 44)));
    let dsdt = table(region, u64_at(fadt, 140));
    assert_eq!((&fadt[..4], &madt[..4], &dsdt[..4]), (&b"FACP"[..], &b"APIC"[..], &b"DSDT"[..]));
    [fadt, madt, dsdt]
}

#[test]
fn every_machine_has_sound_tables() {
    for vcpus in [1, 2, 63, 64] {
        for count in [0, 1, MAX_VIRTIO_DEVICES] {
            let region = region(vcpus, &devices(count));
            walk(&region);
            assert!(region.len() < 8192, "{} bytes", region.len());
        }
    }
}

#[test]
fn the_fadt_describes_reduced_hardware() {
    let region = region(1, &[]);
    let [fadt, ..] = walk(&region);
    assert_eq!((fadt.len(), fadt[8], fadt[131]), (276, 6, 5));
    // HW_REDUCED_ACPI, HEADLESS, RESET_REG_SUP, SLP_BUTTON, PWR_BUTTON.
    assert_eq!(u32_at(fadt, 112), 1 << 20 | 1 << 12 | 1 << 10 | 1 << 5 | 1 << 4);
    assert_eq!(fadt[109..111], [0x24, 0], "no VGA, no CMOS clock, no keyboard controller");
    let port = |number: u64| [vec![1, 8, 0, 1], number.to_le_bytes().to_vec()].concat();
    assert_eq!(fadt[116..128], port(0x602));
    assert_eq!(fadt[128], 1);
    assert_eq!(fadt[244..256], port(0x600));
    assert_eq!(fadt[256..268], port(0x601));
    assert_eq!(&fadt[268..276], b"FIRECRST");
}

#[test]
fn the_madt_has_every_vcpu_and_one_ioapic() {
    for vcpus in [1, 64] {
        let region = region(vcpus, &[]);
        let [_, madt, _] = walk(&region);
        assert_eq!((u32_at(madt, 36), u32_at(madt, 40)), (0xfee0_0000, 0));
        let (cpus, rest) = madt[44..].split_at(8 * usize::from(vcpus));
        for (id, cpu) in (0..).zip(cpus.chunks(8)) {
            assert_eq!(cpu, [0, 8, id, id, 1, 0, 0, 0]);
        }
        assert_eq!(rest[..12], [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 4, 0, 0, 0]);
        assert_eq!(rest[12..], [4, 6, 0xff, 0, 0, 1]);
    }
}

/// Whether ACPICA's disassembler is not there to be asked.
fn iasl_is_missing() -> bool {
    matches!(Command::new("iasl").arg("-v").output(), Err(error) if error.kind() == ErrorKind::NotFound)
}

#[test]
fn acpica_reads_the_tables() {
    if iasl_is_missing() {
        println!("SKIPPED acpica_reads_the_tables: iasl is not installed (Debian package acpica-tools)");
        return;
    }
    let region = region(2, &devices(MAX_VIRTIO_DEVICES));
    let dir = std::env::temp_dir().join(format!("firecrest-boot-acpi-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut text = String::new();
    for (name, table) in ["facp", "apic", "dsdt"].into_iter().zip(walk(&region)) {
        std::fs::write(dir.join(format!("{name}.dat")), table).unwrap();
        let output =
            Command::new("iasl").current_dir(&dir).args(["-d", &format!("{name}.dat")]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && !said.contains("rror") && !said.contains("arning"),
            "{name}: {said}"
        );
        text = std::fs::read_to_string(dir.join(format!("{name}.dsl"))).unwrap();
    }
    let compile = Command::new("iasl").current_dir(&dir).arg("dsdt.dsl").output().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let said = String::from_utf8_lossy(&compile.stdout);
    assert!(compile.status.success() && said.contains(" 0 Errors, 0 Warnings"), "{said}");

    // The last text is the DSDT's; white space and comments are the disassembler's own.
    let words: Vec<_> = text.lines().filter_map(|line| line.split("//").next()).collect();
    let text: String = words.concat().chars().filter(|c| !c.is_whitespace()).collect();
    assert!(text.contains("Name(_S5,Package(0x04)"), "{text}");
    for device in ["COM1", "COMM", "PEVT", "V000", "V018"] {
        assert!(text.contains(&format!("Device({device})")), "{device}: {text}");
    }
    for id in ["EisaId(\"PNP0501\")", "\"QEMU0001\"", "\"LNRO0005\""] {
        assert!(text.contains(&format!("Name(_HID,{id}")), "{id}: {text}");
    }
    for part in ["IO(Decode16,0x03F8,0x03F8,0x01,0x08,)", "IO(Decode16,0x0505,0x0505,0x01,0x01,)"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for place in ["0xCFFFEFFB,0x00000008", "0xD0012000,0x00001000"] {
        assert!(text.contains(&format!("Memory32Fixed(ReadWrite,{place},)")), "{place}: {text}");
    }
    assert!(text.contains("Interrupt(ResourceConsumer,Edge,ActiveHigh,Exclusive,,,){0x00000017,}"), "{text}");
}
