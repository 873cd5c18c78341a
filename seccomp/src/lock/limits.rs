//! Resource limits of the process, none of which can be raised again.

use std::collections::BTreeSet;
use std::fs;
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
    let mut open = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    let mut limit = more;
    // One of them is the listing's own, and free again.
    for number in open.into_iter().filter(|number| fs::read_link(format!("/proc/self/fd/{number}")).is_ok()) {
        if number < limit {
            limit = limit.saturating_add(1);
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
