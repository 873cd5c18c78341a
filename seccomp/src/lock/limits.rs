//! Resource limits of the process, none of which can be raised again.

use std::io;

use super::error::{LockError, cannot};
use super::sys::check;

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// What no thread of ours has a use for.
const NONE: [(Resource, &str); 4] = [
    (libc::RLIMIT_CORE, "set RLIMIT_CORE"),
    (libc::RLIMIT_MSGQUEUE, "set RLIMIT_MSGQUEUE"),
    (libc::RLIMIT_NICE, "set RLIMIT_NICE"),
    (libc::RLIMIT_RTPRIO, "set RLIMIT_RTPRIO"),
];

/// The limit on descriptors that leaves room for `more`: it is their numbers that are limited, and new ones take the
/// lowest that are free.
pub(super) fn descriptors(more: u64) -> io::Result<u64> {
    /// Asked about in one call: of more than the limit allows, the kernel does not answer.
    const AT_ONCE: usize = 32;
    let (mut limit, mut free) = (0_u64, 0_u64);
    while free < more {
        let mut numbers = [libc::pollfd { fd: 0, events: 0, revents: 0 }; AT_ONCE];
        for (number, asked) in (limit..).zip(&mut numbers) {
            asked.fd = libc::c_int::try_from(number).unwrap_or(libc::c_int::MAX);
        }
        // SAFETY: as many entries as are said, which live as long as the call; it does not wait.
        check(unsafe { libc::poll(numbers.as_mut_ptr(), AT_ONCE as libc::nfds_t, 0) })?;
        for asked in numbers {
            if free < more {
                limit = limit.saturating_add(1);
                free = free.saturating_add((asked.revents & libc::POLLNVAL != 0).into());
            }
        }
    }
    Ok(limit)
}

/// Sets all.
pub(super) fn set(descriptors: u64) -> Result<(), LockError> {
    for (resource, what) in NONE {
        set_one(resource, 0).map_err(cannot(what))?;
    }
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for a limit.
    let got = check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut now) });
    got.and_then(|_| set_one(libc::RLIMIT_NOFILE, descriptors.min(now.rlim_cur)))
        .map_err(cannot("set RLIMIT_NOFILE"))
}

fn set_one(resource: Resource, limit: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: a valid limit that is read.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}
