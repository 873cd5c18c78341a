//! Time, from the page that KVM keeps for its guests (kvm-clock): the TSC and how to make nanoseconds of it.

use core::arch::x86_64::_rdtsc;
use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::ptr;

use crate::fail;

/// `struct pvclock_vcpu_time_info`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Time {
    version: u32,
    pad: u32,
    tsc: u64,
    system: u64,
    multiplier: u32,
    shift: i8,
    flags: u8,
    pad1: [u8; 2],
}

/// Written by KVM, on a page of its own.
#[repr(C, align(4096))]
pub struct ClockPage(UnsafeCell<[u8; 4096]>);

// SAFETY: there is one CPU; KVM writes only while it does not run.
unsafe impl Sync for ClockPage {}

pub static CLOCK_PAGE: ClockPage = ClockPage(UnsafeCell::new([0; 4096]));

/// Nanoseconds. Only differences mean something.
pub fn now() -> u64 {
    loop {
        // SAFETY: the page is there for good and any bytes make a `Time`.
        let (time, tsc) = unsafe { (ptr::read_volatile(CLOCK_PAGE.0.get().cast::<Time>()), _rdtsc()) };
        // SAFETY: as above.
        let version = unsafe { ptr::read_volatile(CLOCK_PAGE.0.get().cast::<u32>()) };
        if time.multiplier == 0 {
            fail("KVM keeps no clock");
        }
        if version == time.version && version & 1 == 0 {
            let ticks = tsc.wrapping_sub(time.tsc);
            let shifted = if time.shift < 0 { ticks >> -time.shift } else { ticks << time.shift };
            return time
                .system
                .wrapping_add(((u128::from(shifted) * u128::from(time.multiplier)) >> 32) as u64);
        }
    }
}

/// Waits, without leaving the guest.
pub fn wait(nanoseconds: u64) {
    let until = now() + nanoseconds;
    while now() < until {
        spin_loop();
    }
}

/// Counts how long a device has not answered, and ends the run when that is too long: a lost kick is a result, too.
pub struct Patience {
    looks: u32,
    until: u64,
}

impl Patience {
    const LOOKS: u32 = 4096;
    const LIMIT: u64 = 3_000_000_000;

    pub const fn new() -> Self {
        Self { looks: 0, until: 0 }
    }

    /// There was nothing to be found.
    pub fn nothing(&mut self) {
        spin_loop();
        self.looks += 1;
        if self.looks.is_multiple_of(Self::LOOKS) {
            let now = now();
            if self.until == 0 {
                self.until = now + Self::LIMIT;
            } else if now > self.until {
                fail("the device has stopped answering");
            }
        }
    }

    /// There was something.
    pub fn something(&mut self) {
        self.looks = 0;
        self.until = 0;
    }
}
