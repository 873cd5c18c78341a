//! The ELF note that gives a kernel's PVH entry.
//!
//! Xen's `docs/misc/pvh.pandoc` and `include/xen/interface/elfnote.h`: a note of owner `Xen` and type 18
//! (`XEN_ELFNOTE_PHYS32_ENTRY`) holds the physical address at which the kernel is entered in 32-bit protected
//! mode. Notes of other owners and types are stepped over; bytes that are no note end the search, because nothing
//! but the PVH entry depends on them.

use linux_loader::elf;

use super::ImageError;
use super::elf::inside_file;
use crate::ReadAt;
use crate::bytes::structure;

/// Bytes of one note segment accepted; a Linux kernel has some hundreds.
const MAX_NOTES_LEN: u64 = 64 << 10;
const NOTE_HEADER_LEN: usize = size_of::<elf::Elf64_Nhdr>();
const OWNER: &[u8] = b"Xen\0";
const PHYS32_ENTRY: u32 = 18;

/// The PVH entry in the note segment `program`, if one of its notes gives it.
pub(super) fn pvh_entry(
    source: &(impl ReadAt + ?Sized),
    index: usize,
    program: &elf::Elf64_Phdr,
    file_len: u64,
) -> Result<Option<u64>, ImageError> {
    let (offset, len) = (program.p_offset, program.p_filesz);
    if len > MAX_NOTES_LEN {
        return Err(ImageError::NotesTooLong { index, len, limit: MAX_NOTES_LEN });
    }
    let (true, Ok(size)) = (inside_file(offset, len, file_len), usize::try_from(len)) else {
        return Err(ImageError::NotesOutsideFile { index, offset, len, file_len });
    };
    let mut bytes = vec![0; size];
    source.read_exact_at(&mut bytes, offset).map_err(ImageError::Read)?;
    // Descriptors and notes are padded to 4 bytes, or to 8 in a segment that says so.
    let align = if program.p_align == 8 { 8 } else { 4 };
    match find(&bytes, align) {
        Some(descriptor) => entry(descriptor).map(Some),
        None => Ok(None),
    }
}

/// The descriptor of the PVH note among `notes`. Each turn consumes at least a note header.
fn find(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    loop {
        let header: elf::Elf64_Nhdr = structure(notes)?;
        let name_end = NOTE_HEADER_LEN.checked_add(usize::try_from(header.n_namesz).ok()?)?;
        let desc_start = name_end.checked_next_multiple_of(align)?;
        let desc_end = desc_start.checked_add(usize::try_from(header.n_descsz).ok()?)?;
        let name = notes.get(NOTE_HEADER_LEN..name_end)?;
        let descriptor = notes.get(desc_start..desc_end)?;
        if name == OWNER && header.n_type == PHYS32_ENTRY {
            return Some(descriptor);
        }
        notes = notes.get(desc_end.checked_next_multiple_of(align)?..)?;
    }
}

/// The address in a PVH note: four bytes by the letter, eight as 64-bit Linux writes it.
fn entry(descriptor: &[u8]) -> Result<u64, ImageError> {
    let entry = if let Ok(bytes) = descriptor.try_into() {
        u64::from(u32::from_le_bytes(bytes))
    } else if let Ok(bytes) = descriptor.try_into() {
        u64::from_le_bytes(bytes)
    } else {
        return Err(ImageError::PvhNoteSize { len: descriptor.len() });
    };
    if u32::try_from(entry).is_err() {
        return Err(ImageError::PvhEntryTooHigh { entry });
    }
    Ok(entry)
}
