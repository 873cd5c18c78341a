//! The machine a kernel is to find: what the caller says of it.

use std::ops::Range;

/// A virtio-mmio device, as the guest's firmware tables describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioDevice {
    /// Guest physical address of the register window.
    pub base: u64,
    /// Bytes in the register window.
    pub size: u64,
    /// The global system interrupt (IOAPIC pin) the device raises, edge-triggered.
    pub gsi: u32,
}

/// The machine a kernel is to find.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// Guest RAM: page-aligned, ascending, the first range from address 0 to beyond 1 MiB, none inside
    /// [`MMIO_GAP`](crate::layout::MMIO_GAP). [`ram_ranges`](crate::layout::ram_ranges) makes such a list.
    pub ram: &'a [Range<u64>],
    /// Number of vCPUs, 1 to [`MAX_VCPUS`](crate::layout::MAX_VCPUS); vCPU *n* has APIC id *n*.
    pub vcpus: u8,
    /// The virtio-mmio devices, in the order in which the guest should find them.
    pub devices: &'a [MmioDevice],
}
