//! Structures out of untrusted bytes, and address arithmetic that cannot wrap.

use vm_memory::ByteValued;

/// The guest's page size, and the unit in which files can be mapped.
pub(crate) const PAGE_SIZE: u64 = 4096;

/// The structure at the start of `bytes`, or `None` where they are too few for it.
pub(crate) fn structure<T: ByteValued>(bytes: &[u8]) -> Option<T> {
    T::read_exact_from(bytes).ok()
}

/// `address` rounded down to a multiple of the page size.
pub(crate) const fn page_floor(address: u64) -> u64 {
    address & !PAGE_SIZE.wrapping_sub(1)
}
