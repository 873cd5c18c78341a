//! The memory map that both boot protocols hand to the kernel, in the terms of the PC firmware call E820
//! (ACPI 6.5, section 15.1).

use std::ops::Range;

use super::layout::{HIGH_RAM_START, LOW_RAM_END};
use crate::memory::Memory;

/// Memory the kernel may use.
pub(super) const RAM: u32 = 1;
/// Memory the kernel must leave alone.
pub(super) const RESERVED: u32 = 2;

/// One line of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) range: Range<u64>,
    pub(super) kind: u32,
}

/// The map for `memory`: its ranges, less what lies between conventional memory and 1 MiB.
pub(super) fn entries(memory: Memory<'_>) -> Vec<Entry> {
    let low = [
        Entry { range: 0..LOW_RAM_END, kind: RAM },
        Entry { range: LOW_RAM_END..HIGH_RAM_START, kind: RESERVED },
    ];
    let high = memory
        .ranges()
        .iter()
        .map(|range| Entry { range: range.start.max(HIGH_RAM_START)..range.end, kind: RAM });
    low.into_iter().chain(high).collect()
}
