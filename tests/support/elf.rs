//! Makes kernels out of code: a 64-bit ELF with one loadable segment and, on request, a PVH note.

/// Where a guest's code is loaded: 16 MiB.
pub const LOAD: u64 = 0x100_0000;

/// Where the code begins in the file: a page boundary, so that it can be mapped instead of copied.
pub const CODE_OFFSET: usize = 0x1000;

/// Offsets of the fields that tests spoil, in the file.
pub mod field {
    /// 1 for 32-bit, 2 for 64-bit.
    pub const CLASS: usize = 4;
    /// The architecture, two bytes.
    pub const MACHINE: usize = 18;
    /// The entry point, eight bytes.
    pub const ENTRY: usize = 24;
    /// The first segment's offset in the file, eight bytes.
    pub const SEGMENT_OFFSET: usize = 64 + 8;
    /// The first segment's physical address, eight bytes.
    pub const SEGMENT_ADDRESS: usize = 64 + 24;
    /// The first segment's size in the file, eight bytes.
    pub const SEGMENT_FILE_SIZE: usize = 64 + 32;
    /// The first segment's size in memory, eight bytes.
    pub const SEGMENT_MEMORY_SIZE: usize = 64 + 40;
}

const NOTE_OFFSET: usize = 0x200;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// A kernel of `code`, entered at its first byte through the Linux 64-bit boot protocol.
pub fn kernel(code: &[u8]) -> Vec<u8> {
    build(&[(LOAD, code)], &[])
}

/// A kernel of `code`, entered at its first byte through PVH.
pub fn pvh_kernel(code: &[u8]) -> Vec<u8> {
    build(&[(LOAD, code)], &[pvh(LOAD)])
}

/// The same, and it says that it is Linux.
pub fn linux_kernel(code: &[u8]) -> Vec<u8> {
    build(&[(LOAD, code)], &[pvh(LOAD), note(b"Linux\0\0\0", 6, 0x100, &[0; 4])])
}

/// A kernel of several segments, entered at the first one's first byte.
pub fn segments(segments: &[(u64, &[u8])]) -> Vec<u8> {
    build(segments, &[])
}

/// `elf` with `bytes` at `offset`.
pub fn spoil(mut elf: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    elf[offset..offset + bytes.len()].copy_from_slice(bytes);
    elf
}

fn pvh(entry: u64) -> Vec<u8> {
    note(b"Xen\0", 4, 18, &entry.to_le_bytes()) // XEN_ELFNOTE_PHYS32_ENTRY
}

/// A note; `owner` is padded, and has so many bytes without that.
fn note(owner: &[u8], owner_size: u32, kind: u32, value: &[u8]) -> Vec<u8> {
    let words = [owner_size, u32::try_from(value.len()).unwrap(), kind];
    words.iter().flat_map(|word| word.to_le_bytes()).chain(owner.iter().chain(value).copied()).collect()
}

fn build(segments: &[(u64, &[u8])], notes: &[Vec<u8>]) -> Vec<u8> {
    let headers = segments.len() + usize::from(!notes.is_empty());
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    elf.resize(16, 0);
    elf.extend(2u16.to_le_bytes()); // an executable
    elf.extend(62u16.to_le_bytes()); // x86-64
    elf.extend(1u32.to_le_bytes());
    elf.extend(segments[0].0.to_le_bytes()); // the entry point
    elf.extend(64u64.to_le_bytes()); // program headers follow this header
    elf.extend(0u64.to_le_bytes()); // no sections
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 56, u16::try_from(headers).unwrap(), 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }

    let mut offset = CODE_OFFSET;
    for (address, bytes) in segments {
        program_header(&mut elf, PT_LOAD, offset, *address, bytes.len());
        offset = (offset + bytes.len()).next_multiple_of(0x1000);
    }
    if !notes.is_empty() {
        let notes = notes.concat();
        program_header(&mut elf, PT_NOTE, NOTE_OFFSET, 0, notes.len());
        elf.resize(NOTE_OFFSET, 0);
        elf.extend(notes);
    }
    for (_, bytes) in segments {
        elf.resize(elf.len().max(CODE_OFFSET).next_multiple_of(0x1000), 0);
        elf.extend(*bytes);
    }
    elf
}

fn program_header(elf: &mut Vec<u8>, kind: u32, offset: usize, address: u64, size: usize) {
    let (offset, size) = (offset as u64, size as u64);
    elf.extend(kind.to_le_bytes());
    elf.extend(7u32.to_le_bytes()); // read, write, execute
    for word in [offset, address, address, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
}
