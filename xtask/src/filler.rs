//! Leaves out of a kernel ELF's segments what only fills the space up to a boundary.
//!
//! Linux for x86-64 puts the code that system calls enter by, its read-only data and its data at multiples of 2 MiB each, and
//! the linker fills what lies between: 6 of 11 MiB of a small kernel, which every monitor would copy into every guest.
//! Nothing is moved and no byte of the file changes but its program headers: a segment becomes several, between which
//! memory is zero.

use crate::error::{Error, Result};

/// What segments are divided by.
const PAGE: usize = 4096;
/// Pages of filler in a row that are worth a segment of their own behind them.
const LEAST: usize = 16;
/// Zeroes, and the breakpoints (`int3`) that fill code.
const FILLERS: [u8; 2] = [0x00, 0xcc];

/// Places in an ELF64 header and in a program header, and their sizes (System V ABI, chapters 4 and 5).
const PHOFF: usize = 32;
const PHNUM: usize = 56;
const HEADER: usize = 56;
const PT_LOAD: u64 = 1;
const OFFSET: usize = 8;
const VADDR: usize = 16;
const PADDR: usize = 24;
const FILESZ: usize = 32;
const MEMSZ: usize = 40;
const ALIGN: usize = 48;

/// Rewrites the program headers of `file`, a little-endian ELF64 kernel. Each keeps its permissions and type.
pub fn leave_out(file: &mut [u8]) -> Result<()> {
    let broken =
        || Error::new("the kernel that was built is no ELF file with program headers and room behind them");
    let table = number(file, PHOFF, 8).ok_or_else(broken)?;
    let count = number(file, PHNUM, 2).ok_or_else(broken)?;
    let mut headers = Vec::new();
    for index in 0..count {
        let header = file.get(table + index * HEADER..table + (index + 1) * HEADER).ok_or_else(broken)?;
        headers.extend(pieces(file, header).ok_or_else(broken)?);
    }
    let first = headers.iter().filter_map(|header| number(header, OFFSET, 8)).min().unwrap_or(0);
    let bytes = headers.concat();
    let (true, Ok(count)) = (table + bytes.len() <= first, u16::try_from(headers.len())) else {
        return Err(broken());
    };
    file[PHNUM..PHNUM + 2].copy_from_slice(&count.to_le_bytes());
    file[table..table + bytes.len()].copy_from_slice(&bytes);
    Ok(())
}

/// The headers that `header` becomes.
fn pieces(file: &[u8], header: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (offset, len) = (number(header, OFFSET, 8)?, number(header, FILESZ, 8)?);
    if number(header, 0, 4)? as u64 != PT_LOAD || !offset.is_multiple_of(PAGE) {
        return Some(vec![header.to_vec()]);
    }
    let contents = contents(file.get(offset..offset.checked_add(len)?)?);
    // Each takes the memory up to the next, so that a loader puts nothing else there.
    let ends = contents.iter().skip(1).map(|(start, _)| *start).chain([number(header, MEMSZ, 8)?]);
    let piece = |((start, end), memory): ((usize, usize), usize)| {
        let mut piece = header.to_vec();
        for place in [OFFSET, VADDR, PADDR] {
            set(&mut piece, place, number(header, place, 8)? + start);
        }
        set(&mut piece, FILESZ, end - start);
        set(&mut piece, MEMSZ, memory - start);
        set(&mut piece, ALIGN, PAGE);
        Some(piece)
    };
    contents.iter().copied().zip(ends).map(piece).collect()
}

/// Where `bytes` are something else than filler: ranges that begin at pages, the first at the first, with so much filler
/// between any two.
fn contents(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (index, page) in bytes.chunks(PAGE).enumerate() {
        if index != 0 && FILLERS.iter().any(|filler| page.iter().all(|byte| byte == filler)) {
            continue;
        }
        let (start, end) = (index * PAGE, index * PAGE + page.len());
        match ranges.last_mut() {
            Some((_, last)) if start - *last < LEAST * PAGE => *last = end,
            _ => ranges.push((start, end)),
        }
    }
    ranges
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    usize::try_from(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))).ok()
}

fn set(header: &mut [u8], at: usize, value: usize) {
    header[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of each header: offset, physical address, sizes in file and memory.
    fn segments(file: &[u8]) -> Vec<[usize; 4]> {
        let count = number(file, PHNUM, 2).unwrap();
        let header = |index| &file[64 + index * HEADER..];
        let fields = [OFFSET, PADDR, FILESZ, MEMSZ];
        (0..count).map(|index| fields.map(|field| number(header(index), field, 8).unwrap())).collect()
    }

    /// A file of one segment at its second page, in memory at 1 MiB and a page longer there.
    fn file(content: &[u8]) -> Vec<u8> {
        let mut file = vec![0; PAGE];
        file[PHOFF] = 64;
        file[PHNUM] = 1;
        let mut header = vec![0; HEADER];
        header[0] = 1;
        for (place, value) in [
            (OFFSET, PAGE),
            (VADDR, 0x10_0000),
            (PADDR, 0x10_0000),
            (FILESZ, content.len()),
            (MEMSZ, content.len() + PAGE),
            (ALIGN, 2 << 20),
        ] {
            set(&mut header, place, value);
        }
        file[64..64 + HEADER].copy_from_slice(&header);
        file.extend(content);
        file
    }

    #[test]
    fn filler_is_left_out_and_all_else_stays_where_it_was() {
        let mut content = vec![0xcc; 64 * PAGE];
        content[..PAGE].fill(1);
        // A gap too short to matter, and a long one.
        content[10 * PAGE] = 2;
        content[40 * PAGE..41 * PAGE].fill(0);
        content[60 * PAGE + 7] = 3;
        content.truncate(63 * PAGE + 5);
        let mut file = file(&content);
        let before = file.clone();
        leave_out(&mut file).unwrap();
        let at = |page: usize| (PAGE + page * PAGE, 0x10_0000 + page * PAGE);
        let expected = [[at(0).0, at(0).1, 11 * PAGE, 60 * PAGE], [at(60).0, at(60).1, PAGE, 4 * PAGE + 5]];
        assert_eq!(segments(&file), expected);
        assert_eq!(file[PAGE..], before[PAGE..]);
    }

    #[test]
    fn a_segment_without_filler_stays_one() {
        let content = vec![7; 3 * PAGE + 1];
        let mut file = file(&content);
        leave_out(&mut file).unwrap();
        assert_eq!(segments(&file), [[PAGE, 0x10_0000, content.len(), content.len() + PAGE]]);
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        assert!(leave_out(&mut []).is_err());
        let mut beyond = file(&[1; PAGE]);
        beyond.truncate(PAGE);
        assert!(leave_out(&mut beyond).is_err());
    }
}
