//! A minimal microVM monitor on KVM, as a library.
//!
//! Describe a VM ([`Vm::builder`]), build it, start it, wait for how its guest's run ends:
//!
//! ```no_run
//! use firecrest_vmm::{Console, Exit, Kernel, Vm};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let vm = Vm::builder()
//!     .memory_mib(128)
//!     .vcpus(1)
//!     .kernel(Kernel::open("vmlinux")?.cmdline("console=ttyS0").initrd("initrd.cpio")?)
//!     .console(Console::to(std::io::stdout()))
//!     .build()?;
//! match vm.start()?.wait()? {
//!     Exit::PowerOff | Exit::Reset(_) => println!("done"),
//!     exit => println!("{exit}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What an embedding process can rely on:
//! - Any number of VMs, from any threads. Nothing is process-wide: no static state, no signal handler, no
//!   setting of the caller's threads is changed.
//! - Dropping a [`Vm`] or [`Running`] leaves nothing behind: no thread, descriptor or mapping.
//! - Whatever the caller gives is checked by [`Builder::build`] before anything is started, and refused with
//!   an error that names the thing and the value.
//! - Whatever the guest does ends its own run at most, and [`Running::wait`] says how.
//! - Every thread of a VM has a seccomp filter of its own, and no other thread of the process has one ([`Jail`]).
//! - The process as a whole keeps its rights, unless it gives them up itself, which [`lock`] is for.
//! - Events of note go to the `log` facade. Some come from jailed threads: a logger that does more than write to
//!   what it has open hands its records to a thread of its own (or see [`Jail::off`]).

mod builder;
mod coalesced;
mod console;
mod devices;
mod error;
mod exit;
mod interrupt;
mod jails;
mod kernel;
mod kick;
mod kvm;
mod lifecycle;
mod memory;
mod platform;
mod shared;
mod timeline;
mod vcpu;
mod vm;
mod x86_64;

pub mod host;

pub use builder::Builder;
pub use console::{Console, ConsoleInput};
pub use devices::{DeviceStats, RegisterAccess, Stats};
pub use error::{BuildError, KernelError, StartError, StateError, WaitError};
pub use exit::{Crash, CrashReason, Exit, Registers, ResetCause};
pub use firecrest_boot::{ImageError, PlanError, Protocol};
pub use firecrest_devices::block::{Block, BlockEngine, BlockError, Cache};
pub use firecrest_devices::net::{Net, NetError};
pub use firecrest_devices::rate_limit::{Bucket, RateLimit, RateLimitError};
pub use firecrest_devices::virtio::QueueCounts;
pub use firecrest_devices::vsock::{Vsock, VsockError};
pub use firecrest_seccomp::{Jail, JailError, Violation, lock};
pub use kernel::Kernel;
pub use kvm::KvmError;
pub use memory::{HugePages, MAX_BYTES, MIN_BYTES, Memory, MemoryError, Placed};
pub use timeline::{Phase, Timeline};
pub use vm::{Running, StopHandle, Vm};

/// The README's example is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
