//! A split virtqueue, from the driver's side. Which descriptors a request uses is the caller's business.

use core::ptr;
use core::sync::atomic::{Ordering, fence};

use crate::{Interrupts, pool};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// The driver asks for no interrupts (available ring) or the device for no kicks (used ring); without EVENT_IDX only.
const NOT_WANTED: u16 = 1;

#[repr(C)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

/// Memory the device reads or writes.
#[derive(Clone, Copy)]
pub enum Buffer {
    Read(*const u8, u32),
    Write(*mut u8, u32),
}

pub struct Queue {
    index: u32,
    size: u16,
    descriptors: *mut Descriptor,
    available: *mut u16,
    used: *mut u16,
    notify: *mut u32,
    event_idx: bool,
    interrupts: Interrupts,
    /// Entries of the available ring filled so far, and those of them the device has been shown.
    filled: u16,
    shown: u16,
    /// Entries of the used ring taken so far.
    taken: u16,
    pub kicks: u64,
}

impl Queue {
    pub fn new(index: u32, size: u16, notify: *mut u32, event_idx: bool, interrupts: Interrupts) -> Self {
        let entries = u64::from(size);
        let queue = Self {
            index,
            size,
            descriptors: pool::pages(16 * entries).cast(),
            available: pool::pages(6 + 2 * entries).cast(),
            used: pool::pages(6 + 8 * entries).cast(),
            notify,
            event_idx,
            interrupts,
            filled: 0,
            shown: 0,
            taken: 0,
            kicks: 0,
        };
        let flags = if interrupts == Interrupts::Off { NOT_WANTED } else { 0 };
        // SAFETY: the first word of the ring.
        unsafe { ptr::write_volatile(queue.available, flags) };
        queue.want_interrupts();
        queue
    }

    pub fn size(&self) -> u16 {
        self.size
    }

    /// Chains put so far, modulo 2^16.
    pub fn filled(&self) -> u16 {
        self.filled
    }

    /// Guest physical addresses of the three parts.
    pub fn rings(&self) -> (u64, u64, u64) {
        (self.descriptors as u64, self.available as u64, self.used as u64)
    }

    /// Makes a chain of descriptors that follow each other, from `first` on.
    pub fn chain(&self, first: u16, buffers: &[Buffer]) {
        for (at, buffer) in (first..).zip(buffers) {
            assert!(at < self.size);
            let (address, length, mut flags) = match *buffer {
                Buffer::Read(address, length) => (address as u64, length, 0),
                Buffer::Write(address, length) => (address as u64, length, WRITE),
            };
            if usize::from(at - first) + 1 < buffers.len() {
                flags |= NEXT;
            }
            // SAFETY: `at` is below the size of the table.
            unsafe {
                let descriptor = Descriptor { address, length, flags, next: at + 1 };
                ptr::write_volatile(self.descriptors.add(usize::from(at)), descriptor);
            }
        }
    }

    /// Puts a chain into the available ring; the device sees it with the next `show`.
    pub fn put(&mut self, head: u16) {
        let slot = usize::from(self.filled % self.size);
        // SAFETY: `slot` is below the size of the ring, which starts behind two words.
        unsafe { ptr::write_volatile(self.available.add(2 + slot), head) };
        self.filled = self.filled.wrapping_add(1);
    }

    /// Shows the device what was put, and kicks it where it asks for that.
    pub fn show(&mut self) {
        if self.shown == self.filled {
            return;
        }
        fence(Ordering::Release);
        // SAFETY: the ring's index is its second word.
        unsafe { ptr::write_volatile(self.available.add(1), self.filled) };
        fence(Ordering::SeqCst);
        let shown = core::mem::replace(&mut self.shown, self.filled);
        let wanted = if self.event_idx {
            // SAFETY: the device's event index stands behind the used ring's last entry.
            let event = unsafe { ptr::read_volatile(self.used.add(2 + 4 * usize::from(self.size))) };
            self.filled.wrapping_sub(event).wrapping_sub(1) < self.filled.wrapping_sub(shown)
        } else {
            // SAFETY: the used ring's flags are its first word.
            unsafe { ptr::read_volatile(self.used) & NOT_WANTED == 0 }
        };
        if wanted {
            self.kicks += 1;
            // SAFETY: the device's QueueNotify register.
            unsafe { ptr::write_volatile(self.notify, self.index) };
        }
    }

    /// Takes what the device has done with a chain: its head, and how much was written.
    pub fn take(&mut self) -> Option<(u16, u32)> {
        // SAFETY: the used ring's index is its second word.
        let done = unsafe { ptr::read_volatile(self.used.add(1)) };
        if done == self.taken {
            return None;
        }
        fence(Ordering::Acquire);
        let entry = 2 + 4 * usize::from(self.taken % self.size);
        // SAFETY: `entry` lies within the ring; entries are two 32-bit words.
        let (head, length) = unsafe {
            let entry = self.used.add(entry).cast::<u32>();
            (ptr::read_volatile(entry), ptr::read_volatile(entry.add(1)))
        };
        self.taken = self.taken.wrapping_add(1);
        self.want_interrupts();
        Some((head as u16, length))
    }

    /// Moves the event index: to the next completion, or to the one before, which will not come again soon.
    fn want_interrupts(&self) {
        if self.event_idx {
            let event = match self.interrupts {
                Interrupts::Off => self.taken.wrapping_sub(1),
                Interrupts::Acknowledged => self.taken,
            };
            // SAFETY: the driver's event index stands behind the available ring's last entry.
            unsafe { ptr::write_volatile(self.available.add(2 + usize::from(self.size)), event) };
        }
    }
}
