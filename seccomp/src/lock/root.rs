//! An empty root: a file system in memory, read-only, with nothing in it but the directories of kept sockets, which
//! have the names there that they had.
//!
//! The process's root is not that file system's own but a directory in it. A process whose root is not the root of
//! its mount namespace cannot make user namespaces, and with them the kernel's largest attack surface is closed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::{env, fs, ptr};

use super::Kept;
use super::error::{LockError, cannot};
use super::sys::{c_path, check};

/// Why the root directory is not kept.
const WHOLE: &str = "that is the whole root, which is to be empty: give the socket a directory of its own";

/// The directory that becomes the root.
const ROOT: &str = "root";

const NOSUID_NODEV_NOEXEC: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// Leaves the calling process's mount namespace, which has to be its own, with an empty root.
pub(super) fn empty(kept: &[Kept]) -> Result<(), LockError> {
    // Names that are relative stay what they are, if the working directory does.
    let relative = kept.iter().any(|socket| socket.directory.is_relative());
    let here = if relative {
        env::current_dir().map_err(cannot("find the working directory"))?
    } else {
        PathBuf::from("/")
    };
    // Nothing that is mounted here is seen elsewhere; what is unmounted elsewhere goes here, too.
    set_propagation().map_err(cannot("make the mount namespace's changes its own"))?;
    let mut trees = Vec::new();
    for socket in kept {
        let keep = |source| LockError::Keep { path: socket.directory.clone(), source };
        if is_root(&socket.opened).map_err(keep)? {
            return Err(keep(io::Error::new(io::ErrorKind::InvalidInput, WHOLE)));
        }
        let tree = clone_tree(&socket.directory).map_err(keep)?;
        set_attributes(&tree, NOSUID_NODEV_NOEXEC, libc::AT_RECURSIVE).map_err(keep)?;
        trees.push((here.join(&socket.directory), tree));
    }
    let root = new_tmpfs().map_err(cannot("make an empty file system"))?;
    attach(&root, c"/").map_err(cannot("mount the empty file system"))?;
    enter(&root).map_err(cannot("enter the empty file system"))?;
    make_directory(Path::new(ROOT)).map_err(cannot("make a directory in the empty file system"))?;
    for (name, tree) in trees {
        let keep = |source| LockError::Keep { path: name.clone(), source };
        let inside = make_directories(&name).map_err(keep)?;
        attach(&tree, &c_path(&inside).map_err(keep)?).map_err(keep)?;
    }
    if relative {
        make_directories(&here).map_err(cannot("make the working directory in the empty root"))?;
    }
    leave_old_root().map_err(cannot("leave the old root"))?;
    set_attributes(&root, libc::MOUNT_ATTR_RDONLY | NOSUID_NODEV_NOEXEC, 0)
        .map_err(cannot("make the empty root read-only"))?;
    env::set_current_dir(ROOT).map_err(cannot("enter the empty root"))?;
    // SAFETY: a string that ends.
    check(unsafe { libc::chroot(c".".as_ptr()) }).map_err(cannot("make the empty root the root"))?;
    env::set_current_dir(&here).map_err(cannot("enter the working directory in the empty root"))
}

fn is_root(directory: &fs::File) -> io::Result<bool> {
    let (directory, root) = (directory.metadata()?, fs::metadata("/")?);
    Ok((directory.dev(), directory.ino()) == (root.dev(), root.ino()))
}

/// Makes a directory and those above it in what becomes the root; gives its name there.
fn make_directories(name: &Path) -> io::Result<PathBuf> {
    let mut inside = PathBuf::from(ROOT);
    for component in name.components() {
        match component {
            Component::Normal(_) | Component::ParentDir => inside.push(component),
            _ => continue,
        }
        match make_directory(&inside) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(inside)
}

fn make_directory(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: a string that ends.
    check(unsafe { libc::mkdir(path.as_ptr(), 0o755) })?;
    // The process's umask may keep others out, of whom it is to be one.
    // SAFETY: a string that ends.
    check(unsafe { libc::chmod(path.as_ptr(), 0o755) }).map(drop)
}

fn set_propagation() -> io::Result<()> {
    let flags = libc::MS_REC | libc::MS_SLAVE;
    // SAFETY: a string that ends; the other pointers may be null for this change.
    check(unsafe { libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), flags, ptr::null()) }).map(drop)
}

/// A copy of what is mounted at and below a directory, attached nowhere.
fn clone_tree(directory: &Path) -> io::Result<OwnedFd> {
    let path = c_path(directory)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE.cast_unsigned();
    // SAFETY: a string that ends.
    descriptor(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

fn new_tmpfs() -> io::Result<OwnedFd> {
    // SAFETY: a string that ends.
    let context =
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), libc::FSOPEN_CLOEXEC) })?;
    let configure = |command: libc::c_uint, key: *const libc::c_char, value: *const libc::c_char| {
        // SAFETY: strings that end, or null where the command takes none.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) })
    };
    // Or else it would be everybody's to write.
    configure(libc::FSCONFIG_SET_STRING, c"mode".as_ptr(), c"0755".as_ptr())?;
    configure(libc::FSCONFIG_CMD_CREATE, ptr::null(), ptr::null())?;
    // SAFETY: takes no pointers.
    descriptor(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, NOSUID_NODEV_NOEXEC)
    })
}

/// Mounts what is attached nowhere, on top of what is at a path.
fn attach(tree: &OwnedFd, path: &CStr) -> io::Result<()> {
    // SAFETY: strings that end.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

fn set_attributes(tree: &OwnedFd, attr_set: u64, flags: libc::c_int) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: a string that ends, and a struct of which the kernel reads as many bytes as it is told.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

fn enter(tree: &OwnedFd) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fchdir(tree.as_raw_fd()) }).map(drop)
}

/// Makes the working directory, where the new root is mounted, the root of the mount namespace, and unmounts what
/// was.
///
/// Where the old root is the kernel's first file system, as in an initramfs, it cannot be replaced: there the new
/// one lies on top of it for good, and below the process's own root there is no way to it.
fn leave_old_root() -> io::Result<()> {
    // SAFETY: strings that end.
    let pivoted = check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) });
    match pivoted {
        // The old root is mounted over the new one now, and goes with all that is mounted in it.
        // SAFETY: a string that ends.
        Ok(_) => check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }).map(drop),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        Err(error) => Err(error),
    }
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(check(result)?).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
