//! One error type per operation. Each message names the thing and the value, and leaves what caused it to
//! [`source`](std::error::Error::source).

use std::io;
use std::path::PathBuf;

use firecrest_boot::layout::MAX_VIRTIO_DEVICES;
use firecrest_boot::{ImageError, PlanError};
use firecrest_devices::block::BlockError;
use firecrest_devices::net::NetError;
use firecrest_devices::vsock::VsockError;
use firecrest_seccomp::JailError;

use crate::kvm::KvmError;
use crate::memory::MemoryError;

/// Why a kernel or an initrd cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The file could not be opened or read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The file is not a kernel that can be booted.
    #[error("{name} is not a bootable kernel")]
    Image {
        /// The file, or "kernel in memory".
        name: String,
        /// What is wrong with it.
        source: ImageError,
    },
    /// The initrd has no bytes.
    #[error("initrd {path} is empty", path = path.display())]
    EmptyInitrd {
        /// The file.
        path: PathBuf,
    },
    /// The path leads to something else than a regular file.
    #[error("{path} is not a regular file", path = path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// The kernel could not be copied into sealed memory.
    #[error("cannot keep {name} in sealed memory")]
    Seal {
        /// The file, or "kernel in memory".
        name: String,
        /// What the host said.
        source: io::Error,
    },
}

/// Why a VM could not be built. Nothing has been started, and nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No kernel was given.
    #[error("no kernel was given")]
    NoKernel,
    /// The number of vCPUs is out of range.
    #[error("{count} vCPUs are not between 1 and {max}")]
    Vcpus {
        /// The number asked for.
        count: usize,
        /// The largest number possible on this host.
        max: usize,
    },
    /// A disk cannot be had as it was described.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A network card cannot be had as it was described.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A socket device cannot be had as it was described.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// There are more devices than a machine can have.
    #[error("{count} devices are more than the {MAX_VIRTIO_DEVICES} that a machine can have")]
    Devices {
        /// The number asked for.
        count: usize,
    },
    /// The signal cannot be used to interrupt a vCPU thread.
    #[error(
        "signal {signal} cannot be the kick signal: give SIGSTKFLT, SIGUSR1, SIGUSR2 or a real-time signal"
    )]
    KickSignal {
        /// The signal asked for.
        signal: i32,
    },
    /// Guest memory cannot be had or filled.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel, initrd or command line does not fit this guest.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// KVM cannot be used.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The threads cannot be jailed.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The host is out of something.
    #[error("cannot make {what}")]
    Host {
        /// What was to be made.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

/// Why a VM could not be started. What had been started has been stopped again.
#[derive(Debug, thiserror::Error)]
#[error("cannot start thread {thread}")]
#[non_exhaustive]
pub struct StartError {
    /// The thread's name.
    pub thread: String,
    /// What the host said.
    pub source: io::Error,
}

/// Why a running VM could not be paused or resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The guest's run has ended.
    #[error("the guest's run has ended")]
    Ended,
}

/// What went wrong in the monitor itself while a guest ran.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// A thread of the monitor panicked: a bug in it, never the guest's right.
    #[error("thread {thread} panicked: {message}")]
    Panicked {
        /// The thread's name.
        thread: String,
        /// The panic's message.
        message: String,
    },
    /// A thread's filter could not be installed: it has not run.
    #[error("thread {thread} cannot be jailed: {message}")]
    NotJailed {
        /// The thread's name.
        thread: String,
        /// What the host said.
        message: String,
    },
    /// A device's thread could not go on.
    #[error("thread {thread} failed: {message}")]
    Failed {
        /// The thread's name.
        thread: String,
        /// What it said.
        message: String,
    },
}
