//! Memory for rings and buffers: given out once, never taken back.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::fail;

/// Behind the image, below what every monitor gives a guest of 256 MiB.
const START: u64 = 64 << 20;
const END: u64 = 224 << 20;

static NEXT: AtomicU64 = AtomicU64::new(START);

/// So many bytes on pages of their own, all zero, mapped by having been written.
pub fn pages(length: u64) -> *mut u8 {
    let length = length.next_multiple_of(4096);
    let at = NEXT.fetch_add(length, Ordering::Relaxed);
    if at + length > END {
        fail("the buffers do not fit into memory");
    }
    let start = at as *mut u8;
    // SAFETY: RAM that is mapped one to one and given to nobody else.
    unsafe { start.write_bytes(0, length as usize) };
    start
}
