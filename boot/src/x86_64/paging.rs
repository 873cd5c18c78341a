//! The page tables with which the boot CPU enters long mode: the first GiB, mapped to itself.
//!
//! Intel SDM volume 3, section 4.5 (4-level paging). Three pages do: one entry in the PML4, one in the PDPT, and
//! a PD full of 2 MiB pages.

use super::layout::PAGE_TABLES;
use crate::bytes::PAGE_SIZE;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const LARGE_PAGE_SHIFT: u32 = 21;
const ENTRIES: usize = 512;

/// The three tables, to lie at [`PAGE_TABLES`].
pub(super) fn identity_map() -> Vec<u8> {
    let next_table =
        |index: u64| PAGE_TABLES.saturating_add(PAGE_SIZE.saturating_mul(index)) | PRESENT | WRITE;
    let parent = |child: u64| std::iter::once(child).chain(std::iter::repeat_n(0, ENTRIES.saturating_sub(1)));
    let page = |index: u64| (index << LARGE_PAGE_SHIFT) | PRESENT | WRITE | LARGE;
    let pages = (0..).map(page).take(ENTRIES);
    parent(next_table(1)).chain(parent(next_table(2))).chain(pages).flat_map(u64::to_le_bytes).collect()
}
