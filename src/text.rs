//! Giving back the start-up code's memory.
//!
//! Nearly all of the program's pages in memory are its own file's, mapped sixteen at a time by the kernel while arguments
//! are parsed and the machine is built; hardly any is needed again. Dropped from this process they cost it nothing,
//! and each comes back from the page cache the moment something touches it.

use std::ffi::c_void;

/// Drops this program's code and constants from its memory, all at once.
///
/// Nothing depends on it: where the kernel refuses, the pages stay.
pub fn give_back() {
    for (start, length) in segments() {
        // SAFETY: the range is whole pages of one segment of this program's file that is mapped privately and is not
        // writable, so that what is dropped is what a touch reads again from the file.
        unsafe { libc::madvise(start as *mut c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Address and length of each loaded segment that nothing is ever written to.
fn segments() -> impl Iterator<Item = (usize, usize)> {
    const PAGE: usize = 4096;
    // SAFETY: asks for numbers alone.
    let (table, count) = unsafe { (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM)) };
    let table = table as *const libc::Elf64_Phdr;
    let headers = if table.is_null() {
        &[]
    } else {
        // SAFETY: the kernel says that the program's headers are there, so many of them; they are mapped read-only.
        unsafe { std::slice::from_raw_parts(table, usize::try_from(count).unwrap_or(0)) }
    };
    // Where the headers are, less where they would be at address 0, is how far the program was moved.
    let own = headers.iter().find(|header| header.p_type == libc::PT_PHDR).map(|header| header.p_vaddr);
    let moved = own.and_then(|own| table.addr().checked_sub(usize::try_from(own).ok()?));
    headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
        .filter_map(move |header| {
            let start = moved?.checked_add(usize::try_from(header.p_vaddr).ok()?)?;
            let end =
                start.checked_add(usize::try_from(header.p_memsz).ok()?)?.checked_next_multiple_of(PAGE)?;
            let start = start.checked_sub(start.checked_rem(PAGE)?)?;
            Some((start, end.checked_sub(start)?))
        })
}
