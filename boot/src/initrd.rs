//! Where the initrd goes: as high as possible, so that it stays clear of what the kernel does to itself early on.

use crate::Segment;
use crate::bytes::{PAGE_SIZE, page_floor};

/// The highest page-aligned address at which `len` bytes, rounded up to whole pages, lie inside `floor..limit`
/// and clear of every segment. `segments` ascend and do not overlap, as [`Image`](crate::Image) keeps them.
///
/// Whole pages, because the initrd may be mapped from a file: the rest of its last page is not anyone else's.
pub(crate) fn place(len: u64, floor: u64, limit: u64, segments: &[Segment]) -> Option<u64> {
    let len = len.checked_next_multiple_of(PAGE_SIZE)?;
    let mut top = page_floor(limit);
    for segment in segments.iter().rev() {
        if segment.guest_addr >= top {
            continue;
        }
        let start = top.checked_sub(len)?;
        if start >= segment.end() {
            break;
        }
        top = page_floor(segment.guest_addr);
    }
    top.checked_sub(len).filter(|start| *start >= floor)
}
