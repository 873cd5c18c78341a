//! The time, for threads that may not ask for it: where a host's vDSO cannot tell it, `clock_gettime` is a system call,
//! and no jail has it. Reading a descriptor is what a device's thread can do in any case, and a timerfd(2) counts.
//!
//! It costs a call each time, and only devices that wait for a time have one: those with a rate limit, with several
//! queue pairs, and vsocks. Between two readings it expires once at most, and nobody waits for it: an idle device's
//! clock wakes nobody.
#![allow(unsafe_code, reason = "system calls")]

use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vmm_sys_util::syscall::SyscallReturnCode;

use crate::host_io::Here;

/// What it counts in: milliseconds, as waits do.
const TICK_NANOS: libc::c_long = 1_000_000;

/// A clock that may be read by several threads. It is up to a tick late, and never goes back.
#[derive(Debug)]
pub(crate) struct Clock {
    timer: OwnedFd,
    start: Instant,
    /// Since `start`, as far as they have been read.
    ticks: AtomicU64,
}

impl Clock {
    /// Starts one.
    ///
    /// # Errors
    /// The host has no descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes numbers only.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        let fd = SyscallReturnCode(fd).into_result()?;
        // SAFETY: the descriptor is new and nobody else's.
        let timer = unsafe { OwnedFd::from_raw_fd(fd) };
        let tick = libc::timespec { tv_sec: 0, tv_nsec: TICK_NANOS };
        let setting = libc::itimerspec { it_interval: tick, it_value: tick };
        let start = Instant::now();
        // SAFETY: the call reads the setting and is not asked for the old one.
        let set = unsafe { libc::timerfd_settime(fd, 0, &raw const setting, ptr::null_mut()) };
        SyscallReturnCode(set).into_empty_result()?;
        Ok(Self { timer, start, ticks: AtomicU64::new(0) })
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Instant {
        let mut passed = [0; size_of::<u64>()];
        // An error says that no tick has passed since the last reading, by whomever.
        let passed = match Here(&self.timer).read(&mut passed) {
            Ok(len) if len == passed.len() => u64::from_ne_bytes(passed),
            _ => 0,
        };
        let ticks = self.ticks.fetch_add(passed, Ordering::Relaxed).saturating_add(passed);
        self.start.checked_add(Duration::from_millis(ticks)).unwrap_or(self.start)
    }
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
