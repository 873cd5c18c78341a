//! Uncompressed kernels: ELF64, by physical address.
//!
//! Of the format (System V ABI, chapters 4 and 5) only what a kernel needs is read: the header, the program
//! headers, and the notes they point to. Sections are not looked at.

use linux_loader::elf;

use super::{Image, ImageError, Kernel, Segment, ascending, note};
use crate::ReadAt;
use crate::bytes::structure;

/// Program headers accepted; a Linux kernel has five or six.
const MAX_PROGRAM_HEADERS: u16 = 256;
/// Segments to load, and note segments to search, each.
const MAX_SEGMENTS: usize = 64;
const HEADER_LEN: usize = size_of::<elf::Elf64_Ehdr>();
const PROGRAM_HEADER_LEN: usize = size_of::<elf::Elf64_Phdr>();

/// Whether a file that begins so is an ELF file of any kind.
pub(super) fn is_elf(head: &[u8]) -> bool {
    head.starts_with(elf::ELFMAG)
}

/// Parses the ELF file of `len` bytes that begins with `head`.
pub(super) fn parse(source: &(impl ReadAt + ?Sized), head: &[u8], len: u64) -> Result<Image, ImageError> {
    // The identification bytes come first: they say how to read the rest.
    let ident = |index: usize| head.get(index).copied().unwrap_or_default();
    if head.len() > elf::EI_CLASS && ident(elf::EI_CLASS) != elf::ELFCLASS64 {
        return Err(ImageError::ElfClass { class: ident(elf::EI_CLASS) });
    }
    if head.len() > elf::EI_DATA && ident(elf::EI_DATA) != elf::ELFDATA2LSB {
        return Err(ImageError::ElfEncoding { encoding: ident(elf::EI_DATA) });
    }
    let Some(header) = structure::<elf::Elf64_Ehdr>(head) else {
        return Err(ImageError::Truncated { len, what: "ELF header", needed: HEADER_LEN as u64 });
    };
    if header.e_machine != elf::EM_X86_64 {
        let name = machine_name(header.e_machine);
        return Err(ImageError::ElfMachine { machine: header.e_machine, name });
    }
    if header.e_type != elf::ET_EXEC && header.e_type != elf::ET_DYN {
        return Err(ImageError::ElfType { e_type: header.e_type });
    }

    let mut segments = Vec::new();
    let mut notes = Vec::new();
    for (index, program) in program_headers(source, &header, len)?.into_iter().enumerate() {
        match program.p_type {
            elf::PT_LOAD if program.p_memsz != 0 => segments.push(segment(index, &program, len)?),
            elf::PT_LOAD if program.p_filesz != 0 => {
                return Err(ImageError::SegmentSizes { index, file_len: program.p_filesz, mem_len: 0 });
            }
            elf::PT_NOTE if program.p_filesz != 0 => notes.push((index, program)),
            _ => {}
        }
        if segments.len() > MAX_SEGMENTS || notes.len() > MAX_SEGMENTS {
            return Err(ImageError::TooManySegments { limit: MAX_SEGMENTS });
        }
    }
    if segments.is_empty() {
        return Err(ImageError::NoLoadableSegment);
    }
    let segments = ascending(segments)?;

    let mut found = note::Notes::default();
    for (index, program) in notes {
        note::read(&mut found, source, index, &program, len)?;
    }
    let note::Notes { pvh_entry, linux } = found;
    Ok(Image { segments, kernel: Kernel::Elf { entry: header.e_entry, pvh_entry, linux } })
}

/// All program headers, in one read.
fn program_headers(
    source: &(impl ReadAt + ?Sized),
    header: &elf::Elf64_Ehdr,
    len: u64,
) -> Result<Vec<elf::Elf64_Phdr>, ImageError> {
    let (offset, count) = (header.e_phoff, header.e_phnum);
    if count == 0 {
        return Ok(Vec::new());
    }
    if usize::from(header.e_phentsize) != PROGRAM_HEADER_LEN {
        return Err(ImageError::ProgramHeaderSize { size: header.e_phentsize });
    }
    if count > MAX_PROGRAM_HEADERS {
        return Err(ImageError::TooManyProgramHeaders { count, limit: MAX_PROGRAM_HEADERS });
    }
    let size = usize::from(count).saturating_mul(PROGRAM_HEADER_LEN);
    if !inside_file(offset, size as u64, len) {
        return Err(ImageError::ProgramHeadersOutsideFile { offset, count, file_len: len });
    }
    let mut bytes = vec![0; size];
    source.read_exact_at(&mut bytes, offset).map_err(ImageError::Read)?;
    Ok(bytes.chunks_exact(PROGRAM_HEADER_LEN).filter_map(structure).collect())
}

/// The segment that a `PT_LOAD` header with a size asks for.
fn segment(index: usize, program: &elf::Elf64_Phdr, len: u64) -> Result<Segment, ImageError> {
    let segment = Segment {
        guest_addr: program.p_paddr,
        file_offset: program.p_offset,
        file_len: program.p_filesz,
        mem_len: program.p_memsz,
    };
    if segment.file_len > segment.mem_len {
        return Err(ImageError::SegmentSizes { index, file_len: segment.file_len, mem_len: segment.mem_len });
    }
    // Where nothing comes from the file, the offset means nothing.
    if segment.file_len != 0 && !inside_file(segment.file_offset, segment.file_len, len) {
        return Err(ImageError::SegmentOutsideFile {
            index,
            offset: segment.file_offset,
            len: segment.file_len,
            file_len: len,
        });
    }
    if segment.guest_addr.checked_add(segment.mem_len).is_none() {
        return Err(ImageError::SegmentAddressOverflow {
            index,
            addr: segment.guest_addr,
            len: segment.mem_len,
        });
    }
    Ok(segment)
}

/// Whether `len` bytes at `offset` lie inside a file of `file_len` bytes.
pub(super) fn inside_file(offset: u64, len: u64, file_len: u64) -> bool {
    offset.checked_add(len).is_some_and(|end| end <= file_len)
}

/// What people call an ELF machine for which Linux kernels exist.
fn machine_name(machine: u16) -> &'static str {
    match machine {
        elf::EM_386 => "32-bit x86",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_ARM => "32-bit arm",
        elf::EM_RISCV => "riscv",
        elf::EM_PPC | elf::EM_PPC64 => "powerpc",
        elf::EM_S390 => "s390",
        elf::EM_MIPS => "mips",
        elf::EM_LOONGARCH => "loongarch",
        _ => "another machine",
    }
}
