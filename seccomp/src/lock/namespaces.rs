//! Namespaces, made by whoever may.

use std::fs;
use std::io;

use super::capabilities::{Capability, has};
use super::error::{LockError, cannot};
use super::sys::unshare;

/// Enters new mount, network, IPC and UTS namespaces.
pub(super) fn enter() -> Result<(), LockError> {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    make(flags, "mount, network, IPC and UTS namespaces")
}

/// Makes namespaces; where that takes a right that the process does not have, in a user namespace of its own, which
/// it is made the administrator of.
///
/// It keeps its user and its group, by the same numbers: those and no others exist in there. A process that has the
/// right needs no such namespace: it gives up all capabilities anyway.
pub(super) fn make(flags: libc::c_int, what: &'static str) -> Result<(), LockError> {
    let may = has(Capability::SysAdmin).map_err(cannot("read the process's capabilities (capget)"))?;
    if may {
        let failed = |source| LockError::Namespace { what, by_anybody: false, source };
        return unshare(flags).map_err(failed);
    }
    let failed = |source| LockError::Namespace { what, by_anybody: true, source };
    // SAFETY: neither takes anything, and neither can fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    unshare(flags | libc::CLONE_NEWUSER).map_err(failed)?;
    map(uid, gid).map_err(failed)
}

fn map(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    // Without it, nobody may map a group: membership can also mean not to be let in somewhere.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}
