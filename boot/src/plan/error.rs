//! Why a kernel cannot be booted on a machine.

/// Why no plan can be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No RAM at all.
    #[error("the machine has no memory")]
    NoRam,
    /// RAM that does not begin at 0, or ends before there is room for a kernel.
    #[error("first memory range {start:#x}..{end:#x} does not go from 0 to beyond 1 MiB")]
    FirstRamRange {
        /// Its first address.
        start: u64,
        /// The address just after it.
        end: u64,
    },
    /// More RAM ranges than a memory map holds.
    #[error("the machine has {count} memory ranges, more than {limit}")]
    TooManyRamRanges {
        /// How many there are.
        count: usize,
        /// The most that are accepted.
        limit: usize,
    },
    /// A RAM range that is empty or not made of pages.
    #[error("memory range {index} at {start:#x}..{end:#x} is empty or not a whole number of pages")]
    RamRange {
        /// Index in [`Machine::ram`](crate::Machine::ram).
        index: usize,
        /// Its first address.
        start: u64,
        /// The address just after it.
        end: u64,
    },
    /// A RAM range that begins before the one before it ends.
    #[error("memory range {index} begins at {start:#x}, before the previous one ends ({previous_end:#x})")]
    RamOrder {
        /// Index in [`Machine::ram`](crate::Machine::ram).
        index: usize,
        /// Its first address.
        start: u64,
        /// Where the previous range ends.
        previous_end: u64,
    },
    /// A RAM range where devices have their registers.
    #[error("memory range {index} at {start:#x}..{end:#x} lies in the device gap below 4 GiB")]
    RamInMmioGap {
        /// Index in [`Machine::ram`](crate::Machine::ram).
        index: usize,
        /// Its first address.
        start: u64,
        /// The address just after it.
        end: u64,
    },
    /// No vCPU, or too many.
    #[error("{vcpus} vCPUs are not between 1 and {limit}")]
    VcpuCount {
        /// How many were asked for.
        vcpus: u8,
        /// The most there can be.
        limit: u8,
    },
    /// Device registers outside the window for them, or not made of pages.
    #[error(
        "device registers of {size:#x} bytes at {base:#x} are not whole pages inside {start:#x}..{end:#x}"
    )]
    DevicePlace {
        /// [`MmioDevice::base`](crate::MmioDevice::base).
        base: u64,
        /// [`MmioDevice::size`](crate::MmioDevice::size).
        size: u64,
        /// Where the window begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// Two devices at one place.
    #[error("device registers at {base:#x} overlap those at {other:#x}")]
    DeviceOverlap {
        /// The later device's base.
        base: u64,
        /// The earlier device's base.
        other: u64,
    },
    /// A device with an interrupt that it cannot have.
    #[error("device at {base:#x} has GSI {gsi}, which is taken or not between {first} and {last}")]
    DeviceGsi {
        /// [`MmioDevice::base`](crate::MmioDevice::base).
        base: u64,
        /// [`MmioDevice::gsi`](crate::MmioDevice::gsi).
        gsi: u32,
        /// The first GSI for devices.
        first: u32,
        /// The last GSI there is.
        last: u32,
    },
    /// Tables that fill more than their region.
    #[error("ACPI tables of {len} bytes do not fit in {limit}")]
    AcpiTooLarge {
        /// Bytes the tables take.
        len: usize,
        /// Bytes there are.
        limit: usize,
    },

    /// A kernel that cannot be entered by PVH.
    #[error("the kernel has no PVH entry")]
    NoPvhEntry,
    /// A segment where the tables of the boot protocol lie.
    #[error("kernel segment {index} at {start:#x}..{end:#x} begins below 1 MiB")]
    SegmentLow {
        /// Index in [`Image::segments`](crate::Image::segments).
        index: usize,
        /// Its first address.
        start: u64,
        /// The address just after it.
        end: u64,
    },
    /// A segment that is not wholly RAM.
    #[error("kernel segment {index} at {start:#x}..{end:#x} does not fit in guest memory")]
    SegmentOutsideMemory {
        /// Index in [`Image::segments`](crate::Image::segments).
        index: usize,
        /// Its first address.
        start: u64,
        /// The address just after it.
        end: u64,
    },
    /// A segment that the first page tables do not map.
    #[error(
        "kernel segment {index} at {start:#x}..{end:#x} is not below {limit:#x}, where the page tables end"
    )]
    SegmentUnmapped {
        /// Index in [`Image::segments`](crate::Image::segments).
        index: usize,
        /// Its first address.
        start: u64,
        /// The address just after it.
        end: u64,
        /// The first address that is not mapped.
        limit: u64,
    },
    /// An entry at which there is no kernel.
    #[error("kernel entry {entry:#x} lies outside every segment")]
    EntryOutsideSegments {
        /// The entry's address.
        entry: u64,
    },

    /// A NUL inside the command line.
    #[error("kernel command line has a NUL byte at position {position}")]
    CmdlineNul {
        /// Its index.
        position: usize,
    },
    /// A command line longer than the kernel reads.
    #[error("kernel command line of {len} bytes is longer than {limit}")]
    CmdlineTooLong {
        /// Its bytes, without a NUL.
        len: usize,
        /// The most the kernel reads, without a NUL.
        limit: usize,
    },
    /// An initrd without a byte: the caller names a file that is not one.
    #[error("the initrd is empty")]
    EmptyInitrd,
    /// An initrd for which there is no room.
    #[error(
        "initrd of {len} bytes does not fit below {limit:#x} beside a kernel that ends at {kernel_end:#x}"
    )]
    InitrdDoesNotFit {
        /// Its bytes.
        len: u64,
        /// The end of the memory it may be in.
        limit: u64,
        /// Where the kernel's last segment ends.
        kernel_end: u64,
    },
}
