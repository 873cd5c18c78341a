//! Landlock: nothing can be opened by name any more, but what a kept socket's directory is for.
//!
//! Three system calls and two structs; a library for them would bring more crates than this file has functions. Every
//! right that the kernel can take is taken, so that a rule is only what stays: removing a socket's file, and where
//! the kernel asks, connecting to those beside it. What is open already is not concerned: files keep the rights
//! that they were opened with.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::error::{LockError, cannot};
use super::sys::check;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: libc::c_int = 1;

const REMOVE_FILE: u64 = 1 << 5;
const RESOLVE_UNIX: u64 = 1 << 16;

/// From which version on a right on files exists, and the bits up to it.
const FILES: [(u32, u64); 5] = [
    (9, (1 << 17) - 1), // connecting to Unix sockets
    (5, (1 << 16) - 1), // ioctl on devices
    (3, (1 << 15) - 1), // truncating
    (2, (1 << 14) - 1), // renaming across directories
    (1, (1 << 13) - 1),
];
/// TCP: binding and connecting.
const NETWORK: (u32, u64) = (4, 0b11);
/// Beyond the process: abstract Unix sockets, signals.
const SCOPES: (u32, u64) = (6, 0b11);

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Ruleset {
    files: u64,
    network: u64,
    scopes: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: RawFd,
}

/// What else closes something that a Landlock does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    Namespaces,
    PidNamespace,
}

/// Something that older versions leave open.
pub(super) struct Gap {
    pub what: &'static str,
    pub closed_by: Otherwise,
}

/// What this version leaves open of what newer ones close.
pub(super) fn open_before(abi: u32) -> impl Iterator<Item = Gap> {
    let gap = |since, what, closed_by| (abi < since).then_some(Gap { what, closed_by });
    let gaps = [
        gap(3, "truncating files", Otherwise::Namespaces),
        gap(NETWORK.0, "TCP", Otherwise::Namespaces),
        gap(SCOPES.0, "abstract Unix sockets", Otherwise::Namespaces),
        gap(SCOPES.0, "signals to other processes of the user", Otherwise::PidNamespace),
        gap(9, "Unix sockets in the file system", Otherwise::Namespaces),
    ];
    gaps.into_iter().flatten()
}

/// The version of the kernel's Landlock ABI.
///
/// # Errors
/// What the kernel said: that it has none, or that it is off.
pub fn abi() -> io::Result<u32> {
    // SAFETY: a null pointer and no size, as asking for the version takes them.
    let version = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<Ruleset>(), 0, CREATE_RULESET_VERSION)
    })?;
    u32::try_from(version).map_err(io::Error::other)
}

/// Takes from the calling thread all rights that the kernel's version knows, but to remove files from these
/// directories and to reach sockets there.
pub(super) fn restrict<'a>(abi: u32, kept: impl Iterator<Item = &'a File>) -> Result<(), LockError> {
    let known = |(since, bits): (u32, u64)| if abi >= since { bits } else { 0 };
    let files = FILES.into_iter().map(known).find(|bits| *bits != 0).unwrap_or(0);
    let ruleset = Ruleset { files, network: known(NETWORK), scopes: known(SCOPES) };
    let ruleset = create(&ruleset).map_err(cannot("make a Landlock ruleset"))?;
    for directory in kept {
        allow(&ruleset, directory, files & (REMOVE_FILE | RESOLVE_UNIX))
            .map_err(cannot("allow a socket's directory (landlock_add_rule)"))?;
    }
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map_err(cannot("restrict the process (landlock_restrict_self)"))?;
    Ok(())
}

fn create(ruleset: &Ruleset) -> io::Result<OwnedFd> {
    // A kernel that knows fewer fields takes the longer struct where those it does not know are zero.
    // SAFETY: the kernel reads as many bytes as the struct has.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const *ruleset, size_of::<Ruleset>(), 0_u32)
    })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn allow(ruleset: &OwnedFd, directory: &File, allowed: u64) -> io::Result<()> {
    let rule = PathBeneath { allowed, parent: directory.as_raw_fd() };
    // SAFETY: the kernel reads the struct that belongs to this kind of rule.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    })
    .map(drop)
}
