//! Guest RAM as the caller laid it out, checked once.

use std::ops::Range;

use crate::PlanError;
use crate::bytes::PAGE_SIZE;
use crate::x86_64::layout::{HIGH_RAM_START, MAX_RAM_RANGES, MMIO_GAP};

/// RAM ranges that are page-aligned, non-empty, ascending and disjoint; the first goes from 0 to beyond 1 MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory<'a> {
    ranges: &'a [Range<u64>],
    low_end: u64,
}

impl<'a> Memory<'a> {
    pub(crate) fn new(ranges: &'a [Range<u64>]) -> Result<Self, PlanError> {
        if ranges.len() > MAX_RAM_RANGES {
            return Err(PlanError::TooManyRamRanges { count: ranges.len(), limit: MAX_RAM_RANGES });
        }
        let Some(first) = ranges.first() else { return Err(PlanError::NoRam) };
        if first.start != 0 || first.end <= HIGH_RAM_START {
            return Err(PlanError::FirstRamRange { start: first.start, end: first.end });
        }
        let mut previous_end = 0;
        let mut low_end = 0;
        for (index, range) in ranges.iter().enumerate() {
            let Range { start, end } = *range;
            if start >= end || !start.is_multiple_of(PAGE_SIZE) || !end.is_multiple_of(PAGE_SIZE) {
                return Err(PlanError::RamRange { index, start, end });
            }
            if start < previous_end {
                return Err(PlanError::RamOrder { index, start, previous_end });
            }
            if start < MMIO_GAP.end && end > MMIO_GAP.start {
                return Err(PlanError::RamInMmioGap { index, start, end });
            }
            if start == low_end {
                low_end = end;
            }
            previous_end = end;
        }
        Ok(Self { ranges, low_end })
    }

    pub(crate) fn ranges(&self) -> &'a [Range<u64>] {
        self.ranges
    }

    /// The end of the RAM that begins at address 0, without a hole; at most the start of the MMIO gap.
    pub(crate) fn low_end(&self) -> u64 {
        self.low_end
    }

    /// Whether every byte of `start..end` is RAM; ranges that touch count as one.
    pub(crate) fn covers(&self, start: u64, end: u64) -> bool {
        let mut next = start;
        for range in self.ranges {
            if next < end && range.contains(&next) {
                next = range.end;
            }
        }
        next >= end
    }
}
