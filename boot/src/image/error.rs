//! What can be wrong with a kernel file.

use std::io;

/// Why a file is not a kernel that can be booted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Reading failed.
    #[error("reading the kernel file failed")]
    Read(#[source] io::Error),
    /// There are no bytes at all.
    #[error("kernel file is empty")]
    Empty,
    /// The file ends inside a header.
    #[error("kernel file of {len} bytes is truncated: its {what} needs {needed}")]
    Truncated {
        /// Bytes in the file.
        len: u64,
        /// What is cut off.
        what: &'static str,
        /// Bytes the file would have to have.
        needed: u64,
    },
    /// The first bytes belong to no format we know.
    #[error("kernel file is neither an ELF nor a bzImage: it starts with {first:02x?}")]
    Unrecognized {
        /// The first four bytes, zeroes where the file is shorter.
        first: [u8; 4],
    },

    /// An ELF file of 32-bit class.
    #[error("kernel is a 32-bit ELF (class {class}), not a 64-bit one")]
    ElfClass {
        /// `e_ident[EI_CLASS]`.
        class: u8,
    },
    /// An ELF file that is not little-endian.
    #[error("kernel ELF is not little-endian (data encoding {encoding})")]
    ElfEncoding {
        /// `e_ident[EI_DATA]`.
        encoding: u8,
    },
    /// An ELF file for another kind of CPU.
    #[error("kernel is for {name} (ELF machine {machine}), not for x86-64")]
    ElfMachine {
        /// `e_machine`.
        machine: u16,
        /// Its usual name, or `another machine`.
        name: &'static str,
    },
    /// An ELF file that is an object, a core dump or something stranger.
    #[error("kernel ELF has type {e_type}, neither an executable (2) nor position-independent (3)")]
    ElfType {
        /// `e_type`.
        e_type: u16,
    },
    /// Program headers of a size other than ELF64's.
    #[error("kernel ELF has program headers of {size} bytes, not 56")]
    ProgramHeaderSize {
        /// `e_phentsize`.
        size: u16,
    },
    /// More program headers than any kernel has.
    #[error("kernel ELF has {count} program headers, more than {limit}")]
    TooManyProgramHeaders {
        /// `e_phnum`.
        count: u16,
        /// The most that are accepted.
        limit: u16,
    },
    /// Program headers beyond the end of the file.
    #[error(
        "kernel ELF's {count} program headers at offset {offset:#x} lie outside the file of {file_len} bytes"
    )]
    ProgramHeadersOutsideFile {
        /// `e_phoff`.
        offset: u64,
        /// `e_phnum`.
        count: u16,
        /// Bytes in the file.
        file_len: u64,
    },
    /// More `PT_LOAD` and `PT_NOTE` headers than any kernel has.
    #[error("kernel ELF has more than {limit} segments to load or to search for notes")]
    TooManySegments {
        /// The most that are accepted.
        limit: usize,
    },
    /// An ELF file with nothing to load.
    #[error("kernel ELF has no loadable segment")]
    NoLoadableSegment,
    /// A segment whose file part is larger than its place in memory.
    #[error("kernel segment {index} has {file_len} bytes in the file for {mem_len} in memory")]
    SegmentSizes {
        /// Index of the program header.
        index: usize,
        /// `p_filesz`.
        file_len: u64,
        /// `p_memsz`.
        mem_len: u64,
    },
    /// A segment beyond the end of the file.
    #[error(
        "kernel segment {index}: {len} bytes at offset {offset:#x} lie outside the file of {file_len} bytes"
    )]
    SegmentOutsideFile {
        /// Index of the program header.
        index: usize,
        /// `p_offset`.
        offset: u64,
        /// `p_filesz`.
        len: u64,
        /// Bytes in the file.
        file_len: u64,
    },
    /// A segment that runs past the end of the address space.
    #[error("kernel segment {index}: {len} bytes at {addr:#x} run past the end of the address space")]
    SegmentAddressOverflow {
        /// Index of the program header.
        index: usize,
        /// `p_paddr`.
        addr: u64,
        /// `p_memsz`.
        len: u64,
    },
    /// Two segments that want the same memory.
    #[error(
        "kernel segments at {first_start:#x}..{first_end:#x} and {second_start:#x}..{second_end:#x} overlap"
    )]
    SegmentsOverlap {
        /// Start of the lower segment.
        first_start: u64,
        /// End of the lower segment.
        first_end: u64,
        /// Start of the other.
        second_start: u64,
        /// End of the other.
        second_end: u64,
    },
    /// A note segment beyond the end of the file.
    #[error(
        "kernel note segment {index}: {len} bytes at offset {offset:#x} lie outside the file of {file_len} bytes"
    )]
    NotesOutsideFile {
        /// Index of the program header.
        index: usize,
        /// `p_offset`.
        offset: u64,
        /// `p_filesz`.
        len: u64,
        /// Bytes in the file.
        file_len: u64,
    },
    /// A note segment larger than any kernel has.
    #[error("kernel note segment {index} has {len} bytes, more than {limit}")]
    NotesTooLong {
        /// Index of the program header.
        index: usize,
        /// `p_filesz`.
        len: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// A PVH note that holds no address.
    #[error("kernel's PVH note has {len} bytes, neither 4 nor 8")]
    PvhNoteSize {
        /// Bytes in the note's descriptor.
        len: usize,
    },
    /// A PVH entry that 32-bit code cannot reach.
    #[error("kernel's PVH entry {entry:#x} is not below 4 GiB")]
    PvhEntryTooHigh {
        /// The address in the note.
        entry: u64,
    },

    /// A bzImage older than the 64-bit boot protocol.
    #[error("bzImage has boot protocol {}.{:02}, older than 2.12 (64-bit entry)", version >> 8, version & 0xff)]
    BzImageTooOld {
        /// `version` of the setup header: major in the high byte, minor in the low one.
        version: u16,
    },
    /// A bzImage of a 32-bit kernel.
    #[error("bzImage has no 64-bit entry (xloadflags {xloadflags:#x} without XLF_KERNEL_64)")]
    BzImageNo64BitEntry {
        /// `xloadflags` of the setup header.
        xloadflags: u16,
    },
    /// A zImage, which loads below 1 MiB.
    #[error("bzImage does not load high (loadflags {loadflags:#x} without LOADED_HIGH)")]
    BzImageNotLoadedHigh {
        /// `loadflags` of the setup header.
        loadflags: u8,
    },
    /// A preferred address that the kernel would not run at.
    #[error("bzImage prefers address {address:#x}, which its alignment {alignment:#x} does not allow")]
    BzImageAlignment {
        /// `pref_address` of the setup header.
        address: u64,
        /// `kernel_alignment` of the setup header.
        alignment: u32,
    },
}
