//! The ELF notes that say how a kernel can be entered.
//!
//! Xen's `docs/misc/pvh.pandoc` and `include/xen/interface/elfnote.h`: a note of owner `Xen` and type 18
//! (`XEN_ELFNOTE_PHYS32_ENTRY`) holds the physical address at which the kernel is entered in 32-bit protected
//! mode. Linux since 4.19 has notes of an owner `Linux` besides (`include/linux/elfnote-lto.h`, `build-salt.h`), which
//! say that the ELF header's entry is that of its 64-bit boot protocol. Other notes are stepped over; bytes that are no
//! note end the search, because nothing but the way in depends on them.

use linux_loader::elf;

use super::ImageError;
use super::elf::inside_file;
use crate::ReadAt;
use crate::bytes::structure;

/// Bytes of one note segment accepted; a Linux kernel has some hundreds.
const MAX_NOTES_LEN: u64 = 64 << 10;
const NOTE_HEADER_LEN: usize = size_of::<elf::Elf64_Nhdr>();
const XEN: &[u8] = b"Xen\0";
const PHYS32_ENTRY: u32 = 18;
const LINUX: &[u8] = b"Linux\0";

/// What the notes of a kernel say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notes {
    /// The first PVH entry.
    pub(super) pvh_entry: Option<u64>,
    /// It is Linux.
    pub(super) linux: bool,
}

/// Adds to `found` what the notes in the segment `program` say.
pub(super) fn read(
    found: &mut Notes,
    source: &(impl ReadAt + ?Sized),
    index: usize,
    program: &elf::Elf64_Phdr,
    file_len: u64,
) -> Result<(), ImageError> {
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
    let mut notes = bytes.as_slice();
    while let Some((note, rest)) = next(notes, align) {
        found.linux |= note.owner == LINUX;
        if note.owner == XEN && note.kind == PHYS32_ENTRY && found.pvh_entry.is_none() {
            found.pvh_entry = Some(entry(note.descriptor)?);
        }
        notes = rest;
    }
    Ok(())
}

struct Note<'a> {
    owner: &'a [u8],
    kind: u32,
    descriptor: &'a [u8],
}

/// The first of `notes`, and what is behind it, which is shorter by a header at least.
fn next(notes: &[u8], align: usize) -> Option<(Note<'_>, &[u8])> {
    let header: elf::Elf64_Nhdr = structure(notes)?;
    let name_end = NOTE_HEADER_LEN.checked_add(usize::try_from(header.n_namesz).ok()?)?;
    let desc_start = name_end.checked_next_multiple_of(align)?;
    let desc_end = desc_start.checked_add(usize::try_from(header.n_descsz).ok()?)?;
    let owner = notes.get(NOTE_HEADER_LEN..name_end)?;
    let descriptor = notes.get(desc_start..desc_end)?;
    // The last one's padding may be missing.
    let rest = desc_end.checked_next_multiple_of(align).and_then(|end| notes.get(end..)).unwrap_or_default();
    Some((Note { owner, kind: header.n_type, descriptor }, rest))
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
