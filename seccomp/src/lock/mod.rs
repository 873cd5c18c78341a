//! The process's own jail: what a whole process gives up once it has all that it needs.
//!
//! A VM's threads have their filters ([`Jail`](crate::Jail)), and nothing is asked of the process that embeds it.
//! A process that exists for one VM can go further and give up its own rights, for good. That is a [`Lock`]: an
//! opt-in of the process, never something that a VM does by itself.
//!
//! Nearly all of it is per thread in Linux and inherited by threads that are started later. So there is one moment
//! for it: when everything is open and no second thread exists. A process with more threads is refused, as a lock
//! that binds one of them is none. The order, and why:
//!
//! | step | when | why there |
//! |---|---|---|
//! | close inherited descriptors | first of all | later nobody can tell them from the process's own |
//! | cgroup | [`Lock::begin`] | memory is charged to the cgroup that the process is in when it is first touched |
//! | PID namespace | [`Lock::begin`] | only a child is ever in the new one, and KVM serves no child of who made a VM |
//! | namespaces, empty root | [`Begun::apply`] | after everything is open; needs capabilities |
//! | bounding set | `apply` | needs capabilities |
//! | group, user | `apply` | needs capabilities; a change of the user resets some of what follows |
//! | no dumps | `apply` | a change of the user allows or forbids them as the host likes |
//! | `no_new_privs` | `apply` | allows Landlock to who has no rights |
//! | capabilities | `apply` | nothing after it needs one |
//! | Landlock | `apply` | it forbids mounting, and needs a descriptor |
//! | limits | `apply` | last: no step has to fit in them |
//!
//! What has been opened before stays open: neither Landlock nor an empty root takes a disk, a TAP or `/dev/kvm`
//! away. What is looked up afterwards by name is gone, but for the directories of sockets that are kept
//! ([`Lock::keep_socket`]).
//!
//! Some limits are left alone on purpose. `RLIMIT_AS` and `RLIMIT_DATA`: guest memory is the process's, the
//! cgroup's limit is the one that counts it. `RLIMIT_MEMLOCK`: rings and huge pages use what the host allows.
//! `RLIMIT_FSIZE`: a disk's file may grow when it is to, and the guest cannot write behind its disk's end.
//! `RLIMIT_NPROC`: it counts all of a user's threads, and KVM's and io_uring's own among them; the cgroup's
//! `pids.max` is the limit for that.

#![allow(unsafe_code, reason = "system calls that the standard library does not have")]

mod capabilities;
mod cgroup;
mod error;
mod guardian;
mod landlock;
mod limits;
mod namespaces;
mod report;
mod root;
mod sys;

use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use self::capabilities::Capability;
pub use self::cgroup::Cgroup;
pub use self::error::LockError;
use self::error::cannot;
pub use self::landlock::abi as landlock_abi;
pub use self::report::Report;

/// What a process gives up. Made by [`Lock::new`], begun before the process opens anything, applied when everything
/// is open.
///
/// ```no_run
/// use firecrest_seccomp::lock::Lock;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let lock = Lock::new().namespaces().begin()?;
/// // ... open files, build the VM; start no thread ...
/// let report = lock.apply()?;
/// report.missing().for_each(|missing| eprintln!("not locked: {missing}"));
/// // ... start the VM ...
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Lock {
    strict: bool,
    namespaces: bool,
    pid_namespace: bool,
    user: Option<(u32, u32)>,
    cgroup: Option<Cgroup>,
    sockets: Vec<PathBuf>,
    descriptors: u64,
    closed: bool,
}

impl Lock {
    /// `no_new_privs`, no capabilities, no core dumps and no tracing, limits, Landlock.
    pub fn new() -> Self {
        Self { descriptors: 64, ..Self::default() }
    }

    /// Makes an error of what would otherwise be told in the [`Report`].
    ///
    /// Without it, three things are: a kernel without Landlock, or with one that leaves something open; a bounding
    /// set that may not be emptied; a kept socket that cannot be removed at the end. Everything else is an error in
    /// any case.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Mount, network, IPC and UTS namespaces of the process's own, with nothing in them: an empty root file system
    /// and no network interface that is up. Where the process may not make them, it makes a user namespace first,
    /// which the kernel may allow anybody. It cannot make further user namespaces after that.
    pub fn namespaces(mut self) -> Self {
        self.namespaces = true;
        self
    }

    /// A PID namespace, in which the process is alone. [`begin`](Self::begin) then forks, and returns in the child.
    /// The parent does nothing but pass signals on to it, wait for its end, and end in the same way.
    pub fn pid_namespace(mut self) -> Self {
        self.pid_namespace = true;
        self
    }

    /// Becomes this user and this group, and no other group's member. Kept sockets become that user's.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Moves the process into a cgroup, and sets limits there.
    pub fn cgroup(mut self, cgroup: Cgroup) -> Self {
        self.cgroup = Some(cgroup);
        self
    }

    /// Keeps the directory of a Unix socket within reach, by the name it has now: sockets in it can be connected
    /// to, and files in it be removed, as far as the user may. Without namespaces and with a Landlock before ABI 9,
    /// connecting is open for sockets everywhere.
    ///
    /// The socket has to exist when the lock is applied. Give it a directory of its own: all that is in there stays
    /// visible. With namespaces, it cannot lie in the root directory.
    pub fn keep_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.sockets.push(path.into());
        self
    }

    /// How many descriptors the process may open besides those that are open when the lock is applied; 64 unless set.
    /// The limit that the process has already is never raised.
    pub fn descriptors(mut self, more: u64) -> Self {
        self.descriptors = more;
        self
    }

    /// Closes every descriptor from 3 on, at once: what the process has inherited.
    ///
    /// # Errors
    /// The kernel cannot (before Linux 5.9).
    ///
    /// # Safety
    /// Nothing in the process owns a descriptor from 3 on.
    pub unsafe fn close_inherited(mut self) -> Result<Self, LockError> {
        sys::close_from(3).map_err(cannot("close inherited descriptors (close_range)"))?;
        self.closed = true;
        Ok(self)
    }

    /// Checks what can be checked before anything is changed; then joins the cgroup and enters the PID namespace.
    /// To be called before the process opens anything for the VM.
    ///
    /// # Errors
    /// What cannot be had, or may not be done. The process may be in the cgroup then.
    #[cold]
    pub fn begin(self) -> Result<Begun, LockError> {
        check_alone()?;
        let mut report = Report::default();
        if self.closed {
            report.add("inherited descriptors");
        }
        let abi = landlock::abi().map_err(|source| source.to_string());
        if self.strict {
            self.check_strictly(&abi)?;
        }
        if let Some((uid, gid)) = self.user {
            self.check_user(uid, gid)?;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.join()?;
            report.add("cgroup");
        }
        if self.pid_namespace {
            guardian::enter()?;
            report.add("PID namespace");
        }
        Ok(Begun { lock: self, abi, report })
    }

    /// What strictness can already tell: later, half of the lock would be on.
    fn check_strictly(&self, abi: &Result<u32, String>) -> Result<(), LockError> {
        let mut missing = Report::default();
        missing.landlock(abi, self.namespaces, self.pid_namespace);
        if !(self.has(Capability::SetPcap)? || self.namespaces || self.pid_namespace) {
            missing.bounding_set();
        }
        missing.strictly()
    }

    fn check_user(&self, uid: u32, gid: u32) -> Result<(), LockError> {
        // The number that stands for no change.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(LockError::UserNumber { uid, gid });
        }
        if self.has(Capability::SetUid)? && self.has(Capability::SetGid)? {
            return Ok(());
        }
        Err(LockError::User { uid, gid, source: std::io::Error::from_raw_os_error(libc::EPERM) })
    }

    fn has(&self, capability: Capability) -> Result<bool, LockError> {
        capabilities::has(capability).map_err(cannot("read the process's capabilities (capget)"))
    }
}

/// A lock that is begun: the process is where it will stay, and has still to give up its rights.
#[derive(Debug)]
#[must_use = "a lock that is not applied locks nothing"]
pub struct Begun {
    lock: Lock,
    abi: Result<u32, String>,
    report: Report,
}

/// A socket that is kept.
struct Kept {
    path: PathBuf,
    /// Its directory, as it was named.
    directory: PathBuf,
    /// The same, opened.
    opened: File,
}

impl Begun {
    /// Gives everything up, for good: for this thread, and for all that are started from now on.
    ///
    /// # Errors
    /// What could not be done. Some of the lock is on then, and cannot be taken off: the process should end.
    #[cold]
    pub fn apply(self) -> Result<Report, LockError> {
        let Self { lock, abi, mut report } = self;
        check_alone()?;
        let kept = lock.sockets.iter().map(|path| keep(path)).collect::<Result<Vec<_>, _>>()?;
        let limit = limits::descriptors(lock.descriptors).map_err(cannot("count open descriptors"))?;

        if let Some((uid, gid)) = lock.user {
            for socket in &kept {
                std::os::unix::fs::lchown(&socket.path, Some(uid), Some(gid))
                    .map_err(|source| LockError::Socket { path: socket.path.clone(), source })?;
            }
        }
        if lock.namespaces {
            namespaces::enter()?;
            root::empty(&kept)?;
            report.add("namespaces and an empty root");
        }
        if lock.has(Capability::SetPcap)? {
            capabilities::empty_bounding_set().map_err(cannot("empty the capability bounding set"))?;
            report.add("bounding set");
        } else {
            report.bounding_set();
        }
        if let Some((uid, gid)) = lock.user {
            sys::become_user(uid, gid).map_err(|source| LockError::User { uid, gid, source })?;
            report.add("user and group");
        }
        sys::no_dumps().map_err(cannot("forbid dumps and tracing (PR_SET_DUMPABLE)"))?;
        report.add("no dumps, no tracing");
        sys::no_new_privs().map_err(cannot("set no_new_privs"))?;
        report.add("no_new_privs");
        capabilities::drop_all().map_err(cannot("drop the capabilities"))?;
        report.add("capabilities");
        if let Ok(abi) = abi {
            landlock::restrict(abi, kept.iter().map(|socket| &socket.opened))?;
            report.add("Landlock");
        }
        report.landlock(&abi, lock.namespaces, lock.pid_namespace);
        limits::set(limit)?;
        report.add("limits");
        for socket in &kept {
            report.removal(&socket.path, &socket.directory);
        }
        if lock.pid_namespace {
            // A change of the user has undone it.
            guardian::die_with_parent()?;
        }
        if lock.strict {
            report.strictly()?;
        }
        Ok(report)
    }
}

fn keep(path: &Path) -> Result<Kept, LockError> {
    let error = |source| LockError::Socket { path: path.to_owned(), source };
    fs::symlink_metadata(path).map_err(error)?;
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().as_bytes().is_empty() => directory.to_owned(),
        _ => PathBuf::from("."),
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(&directory)
        .map_err(error)?;
    Ok(Kept { path: path.to_owned(), directory, opened })
}

/// Refuses a process that has a second thread: it would stay as it is.
fn check_alone() -> Result<(), LockError> {
    // Of this flag the kernel does nothing but refuse it to a process with threads.
    match sys::unshare(libc::CLONE_THREAD) {
        Ok(()) => Ok(()),
        Err(_) => Err(LockError::Threads {
            // A directory has a link more for each directory in it, and two of its own.
            count: fs::metadata("/proc/self/task").map_or(2, |tasks| tasks.nlink().saturating_sub(2)),
        }),
    }
}
