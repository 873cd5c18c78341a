//! Why a process is not locked.

use std::io;
use std::path::PathBuf;

use super::report::Report;

/// Why a process cannot be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// There are other threads, which a lock would not bind.
    #[error("a process of {count} threads cannot be locked: only one that has a single thread can")]
    Threads {
        /// How many there are.
        count: u64,
    },
    /// Strictness was asked for, and something cannot be done.
    #[error("not as strict as asked for: {0}")]
    Strict(Report),
    /// A system call failed.
    #[error("cannot {what}")]
    Call {
        /// What it was to do.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No user or group has such a number.
    #[error("uid {uid} and gid {gid} cannot be: {} stands for no user", u32::MAX)]
    UserNumber {
        /// The user's number.
        uid: u32,
        /// The group's number.
        gid: u32,
    },
    /// The process may not become that user.
    #[error("cannot become user {uid} of group {gid}: that takes CAP_SETUID and CAP_SETGID")]
    User {
        /// The user's number.
        uid: u32,
        /// The group's number.
        gid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A namespace cannot be had.
    #[error("cannot make {what}{}", if *by_anybody { USER_NAMESPACES } else { "" })]
    Namespace {
        /// Which.
        what: &'static str,
        /// Whether it was tried without the right to do so, through a user namespace.
        by_anybody: bool,
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory cannot be brought into the empty root.
    #[error("cannot keep {path} within reach", path = path.display())]
    Keep {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A socket that is to be kept is not there, or cannot be handed over.
    #[error("cannot keep the socket {path}", path = path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The directory is none of a cgroup v2 file system.
    #[error("{path} is not a directory of a cgroup v2 file system", path = path.display())]
    NotCgroup {
        /// The directory.
        path: PathBuf,
    },
    /// The cgroup has no such limit.
    #[error(
        "{path} has no {file}: its parent does not give it the controller (cgroup.subtree_control)",
        path = path.display()
    )]
    Controller {
        /// The directory.
        path: PathBuf,
        /// The limit's file.
        file: &'static str,
    },
    /// The cgroup does not take a limit, or the process.
    #[error("cannot write `{value}` to {path}", path = path.display())]
    Cgroup {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A limit of the cgroup that makes no sense.
    #[error("a cgroup's {what} cannot be {value}")]
    CgroupLimit {
        /// Which.
        what: &'static str,
        /// What was asked for.
        value: u64,
    },
}

/// Said where a user namespace is refused.
const USER_NAMESPACES: &str = " without CAP_SYS_ADMIN: does this host allow user namespaces \
    (user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)?";

/// What a failed call makes of it.
pub(super) fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> LockError {
    move |source| LockError::Call { what, source }
}
