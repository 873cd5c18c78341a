//! The guest's address space: fixed places, shared with whoever builds the machine.
//!
//! | address | what |
//! |---|---|
//! | `0x500` | GDT, and behind it the IDT (`0x520`) |
//! | `0x6000` | PVH start info, modules, memory map |
//! | `0x7000` | zero page (`boot_params`) |
//! | `0x8000` | boot stack, growing down from `0x8ff0` |
//! | `0x9000`, `0xa000`, `0xb000` | PML4, PDPT, PD: the first GiB, mapped to itself |
//! | `0x20000` | kernel command line |
//! | `0xe0000..0xf0000` | ACPI tables, the RSDP first |
//! | `0xffff0` | the reset vector: a few bytes of code that reset the machine |
//! | `0x100000` | RAM for kernel and initrd, up to the gap |
//! | `0xc000_0000..0x1_0000_0000` | no RAM: serial port, virtio-mmio devices, IOAPIC, local APIC |
//! | `0x1_0000_0000` | further RAM |

use std::ops::Range;

/// The GDT: null, TSS, code and data, at the selectors Linux names `__BOOT_CS` (0x10) and `__BOOT_DS` (0x18).
pub const GDT: u64 = 0x500;
/// The IDT: one entry, not present, so that an early fault shuts the guest down.
pub const IDT: u64 = 0x520;
/// PVH's `hvm_start_info`, with the module list and the memory map in the same page.
pub const PVH_START_INFO: u64 = 0x6000;
/// Linux's `boot_params`, one page.
pub const ZERO_PAGE: u64 = 0x7000;
/// The boot CPU's first stack pointer.
pub const BOOT_STACK: u64 = 0x8ff0;
/// The first of three page-table pages: PML4, PDPT, PD.
pub const PAGE_TABLES: u64 = 0x9000;
/// The end of what those page tables map, one to one: 1 GiB.
pub const IDENTITY_MAP_END: u64 = 1 << 30;
/// The kernel command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Bytes of command line that a kernel reads which does not say how many, with the NUL.
pub const CMDLINE_MAX: usize = 2048;
/// Bytes set aside for the command line, with the NUL, whatever a kernel says it can read.
pub const CMDLINE_REGION: usize = 0x1_0000;
/// The end of conventional memory; from here to 1 MiB everything is reserved.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// The ACPI root pointer (RSDP), where firmware would have put it; the other tables follow.
pub const RSDP: u64 = 0xe_0000;
/// Bytes set aside for the ACPI tables.
pub const ACPI_REGION: usize = 0x1_0000;
/// Where a CPU that firmware resets would start: F000:FFF0 in real mode.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Where kernels and initrds may lie from: 1 MiB.
pub const HIGH_RAM_START: u64 = 0x10_0000;
/// Addresses below 4 GiB that are never RAM.
pub const MMIO_GAP: Range<u64> = 0xc000_0000..0x1_0000_0000;
/// Ranges of RAM a machine can have: what a zero page describes, less two for the hole below 1 MiB.
pub const MAX_RAM_RANGES: usize = 126;

/// The IOAPIC's registers.
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
/// The local APIC's registers.
pub const LAPIC_BASE: u64 = 0xfee0_0000;
/// The first virtio-mmio device's registers; each further one follows at [`VIRTIO_MMIO_SIZE`].
pub const VIRTIO_MMIO_BASE: u64 = 0xd000_0000;
/// Bytes of a virtio-mmio device's registers.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// Where devices may have registers.
pub const DEVICE_WINDOW: Range<u64> = VIRTIO_MMIO_BASE..IOAPIC_BASE;
/// The serial port's registers in memory: five of them at the end of one page, and three at the beginning of the next,
/// which is [`SERIAL_PAGE`].
pub const SERIAL_BASE: u64 = SERIAL_PAGE - 5;
/// What a guest may find mapped read-only: line status, modem status and scratch register of the serial port.
pub const SERIAL_PAGE: u64 = VIRTIO_MMIO_BASE - VIRTIO_MMIO_SIZE;

/// The GSI of the IOAPIC's first pin. A guest looks at every pin there is, several exits for each: so none is there for
/// a PC's timer, keyboard and further serial port. (And to Linux, GSIs 0 and 2 are none that a device could have.)
pub const IOAPIC_GSI_BASE: u32 = SERIAL_GSI;
/// Pins of the IOAPIC at most: the serial port's, and one for each device. A machine with fewer devices can do with fewer.
pub const IOAPIC_PINS: u32 = 1 + MAX_VIRTIO_DEVICES;
/// The serial port's GSI, where a PC has it.
pub const SERIAL_GSI: u32 = 4;
/// The first GSI for virtio-mmio devices.
pub const VIRTIO_GSI_FIRST: u32 = 5;
/// The most virtio-mmio devices a machine can have: one GSI each.
pub const MAX_VIRTIO_DEVICES: u32 = 24;

/// The serial port (16550A).
pub const PORT_SERIAL: u16 = 0x3f8;
/// Ports the serial port takes, and bytes in memory.
pub const SERIAL_REGISTERS: u8 = 8;
/// pvpanic: the guest writes 1 when it panics, and reads which events it may write.
pub const PORT_PVPANIC: u16 = 0x505;
/// ACPI sleep control register; a write with `SLP_EN` (bit 5) and [`SLEEP_TYPE_S5`] in bits 2 to 4 is power-off.
pub const PORT_ACPI_SLEEP_CONTROL: u16 = 0x600;
/// ACPI sleep status register; bit 7 (`WAK_STS`) reads 0 and is cleared by writing 1.
pub const PORT_ACPI_SLEEP_STATUS: u16 = 0x601;
/// ACPI reset register; a write of [`ACPI_RESET_VALUE`] resets the machine.
pub const PORT_ACPI_RESET: u16 = 0x602;
/// The value that resets the machine.
pub const ACPI_RESET_VALUE: u8 = 1;
/// `SLP_TYP` of soft-off (S5).
pub const SLEEP_TYPE_S5: u8 = 5;

/// The most vCPUs a machine can have.
pub const MAX_VCPUS: u8 = 64;

/// RAM ranges for `size` bytes of memory: from 0, and what does not fit below the gap from 4 GiB on.
pub fn ram_ranges(size: u64) -> Vec<Range<u64>> {
    let low = size.min(MMIO_GAP.start);
    let high = size.saturating_sub(low);
    let ranges = [0..low, MMIO_GAP.end..MMIO_GAP.end.saturating_add(high)];
    ranges.into_iter().filter(|range| !range.is_empty()).collect()
}
