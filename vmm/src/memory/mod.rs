//! How much memory a guest has, and what backs it.
//!
//! The guest physical address space is RAM from 0 up to the MMIO gap, and what does not fit below it from
//! 4 GiB on; see [`firecrest_boot::layout`].

mod ram;

use std::ops::Range;

use firecrest_boot::layout::ram_ranges;

pub(crate) use ram::Ram;
pub use ram::{MemoryError, Placed};

/// The smallest memory a guest can have, in bytes: 16 MiB.
pub const MIN_BYTES: u64 = 16 << 20;

/// The largest memory a guest can have, in bytes: 64 GiB.
pub const MAX_BYTES: u64 = 64 << 30;

/// Guest pages are 4 KiB, whatever the host backs them with.
pub(crate) const PAGE_SIZE: u64 = 4096;

/// What the host backs guest memory with. Where that is huge pages, the kernel image is copied, not mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// Anonymous memory under the host's own policy for transparent huge pages.
    #[default]
    HostPolicy,
    /// Anonymous memory, with transparent huge pages asked for (`MADV_HUGEPAGE`).
    Transparent,
    /// 2 MiB pages of the host's hugetlb pool, reserved when the VM is built.
    Hugetlb2M,
}

impl HugePages {
    fn page_size(self) -> u64 {
        match self {
            Self::HostPolicy | Self::Transparent => PAGE_SIZE,
            Self::Hugetlb2M => 2 << 20,
        }
    }
}

/// A guest's memory: its size and what backs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Memory {
    bytes: u64,
    huge_pages: HugePages,
}

impl Memory {
    /// This many bytes. Checked by [`Builder::build`](crate::Builder::build): from [`MIN_BYTES`] to
    /// [`MAX_BYTES`], and whole pages.
    pub fn bytes(bytes: u64) -> Self {
        Self { bytes, huge_pages: HugePages::default() }
    }

    /// This many MiB; a size that overflows 64 bits of bytes is refused like any that is too large.
    pub fn mib(mib: u64) -> Self {
        Self::bytes(mib.saturating_mul(1 << 20))
    }

    /// Backs the memory with these pages.
    pub fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.huge_pages = huge_pages;
        self
    }

    /// The guest physical ranges that are RAM, ascending.
    pub(crate) fn layout(self) -> Result<Vec<Range<u64>>, MemoryError> {
        let Self { bytes, huge_pages } = self;
        if !(MIN_BYTES..=MAX_BYTES).contains(&bytes) {
            return Err(MemoryError::Size { bytes });
        }
        let page = huge_pages.page_size();
        if !bytes.is_multiple_of(page) {
            return Err(MemoryError::Alignment { bytes, page });
        }
        Ok(ram_ranges(bytes))
    }
}

#[cfg(test)]
mod tests;
