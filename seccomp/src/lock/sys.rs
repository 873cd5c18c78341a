//! System calls, each in the narrow form that is needed.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// What a call that returns 0 or more said.
pub(super) fn check(result: impl Into<i64>) -> io::Result<i64> {
    let result = result.into();
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A path as the kernel takes it.
pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

pub(super) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes no pointers. What it changes is the calling thread's, which is the only one.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: takes no pointers. The caller vouches that nobody owns what is closed.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// `prctl` with two plain arguments.
pub(super) fn prctl(operation: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> io::Result<i64> {
    // SAFETY: none of the operations used here takes a pointer.
    check(unsafe { libc::prctl(operation, first, second, 0 as libc::c_ulong, 0 as libc::c_ulong) })
}

pub(super) fn no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// No core dump, not even to a handler, to which `RLIMIT_CORE` does not apply; and no tracing by others of the same
/// user.
pub(super) fn no_dumps() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0).map(drop)
}

/// All three identities of both kinds; no further groups. The C library would have every thread do it, and there is one.
pub(super) fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: a null pointer to no groups.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>()) })?;
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

pub(super) fn is_writable(directory: &Path) -> io::Result<()> {
    let path = c_path(directory)?;
    // SAFETY: a string that ends, which lives as long as the call.
    check(unsafe {
        libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS)
    })
    .map(drop)
}
