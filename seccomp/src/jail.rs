//! The embedder's say: what becomes of a thread that calls what it may not.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use seccompiler::sock_filter;

use crate::compile::{Facts, compile};
use crate::role::Role;

/// What becomes of a thread of ours that makes a system call which its list does not have.
///
/// The lists bind the threads that the VM starts, and no other thread of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Jail {
    mode: Mode,
    without: Option<(Role, usize)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Enforce,
    Trap,
    Log,
    Off,
}

impl Jail {
    /// The process is killed by `SIGSYS`, and the call is not made. The host's audit log names the thread and the
    /// call's number (`comm="fc-vcpu0" ... syscall=41`), and so does `dmesg` where no audit daemon runs.
    ///
    /// It is the process, not the thread: a thread that does what it never would by itself is not its own master
    /// any more, and it shares all memory with the others.
    ///
    /// When the process changes its user or groups, threads of a VM stay as they were: their calls for that, which
    /// the C library has every thread make, are answered without being made. They hold what was opened for them,
    /// and of what they may call, `connect` alone asks who they are (a vsock device reaching for the sockets of
    /// the host's programs).
    pub fn enforce() -> Self {
        Self::of(Mode::Enforce)
    }

    /// The thread gets `SIGSYS`, and the call is not made. The process's handler for that signal, which the
    /// embedder has to have installed, learns of the thread's name and the call's number from
    /// [`Violation`](crate::Violation); it runs on the thread, with the thread's filter. Where there is none, the
    /// process dies.
    pub fn trap() -> Self {
        Self::of(Mode::Trap)
    }

    /// The call is made. The host's audit log names the thread and the call's number, as for
    /// [`enforce`](Self::enforce). To find out what an embedder's logger or console writer calls, and to see
    /// whole backtraces of panics.
    pub fn log() -> Self {
        Self::of(Mode::Log)
    }

    /// There are no filters.
    pub fn off() -> Self {
        Self::of(Mode::Off)
    }

    /// Leaves one rule of a role out, by its place in [`Role::rules`]: for tests that show that it is needed.
    pub fn without(mut self, role: Role, rule: usize) -> Self {
        self.without = Some((role, rule));
        self
    }

    fn of(mode: Mode) -> Self {
        Self { mode, without: None }
    }

    /// Compiles the list of a role, to be given to any number of threads. vCPUs take their kicks from the
    /// descriptor `kicks` (a signalfd), and read nothing else.
    ///
    /// # Errors
    /// The kernel has no seccomp, or not all of it that the mode needs.
    pub fn filter(self, role: Role, kicks: RawFd) -> Result<Filter, JailError> {
        let (action, name) = match self.mode {
            Mode::Off => return Ok(Filter::none()),
            Mode::Trap => (libc::SECCOMP_RET_TRAP, "SECCOMP_RET_TRAP"),
            Mode::Log => (libc::SECCOMP_RET_LOG, "SECCOMP_RET_LOG"),
            Mode::Enforce => (libc::SECCOMP_RET_KILL_PROCESS, "SECCOMP_RET_KILL_PROCESS"),
        };
        is_available(action).map_err(|source| match source.raw_os_error() {
            Some(libc::EOPNOTSUPP) => JailError::NoAction { action: name, source },
            _ => JailError::NoSeccomp(source),
        })?;
        let facts = Facts { kicks, refuses: self.mode != Mode::Log };
        let left_out = self.without.filter(|(of, _)| *of == role).map(|(_, rule)| rule);
        let rules =
            role.rules().enumerate().filter(|(place, _)| Some(*place) != left_out).map(|(_, rule)| rule);
        let program = compile(rules, action, facts).into();
        Ok(Filter { program: Some(program), traps: self.mode == Mode::Trap })
    }
}

/// A compiled list, for threads of one role. Cloning shares it.
#[derive(Clone)]
pub struct Filter {
    program: Option<Arc<[sock_filter]>>,
    /// A handler of the process's is to run on the thread.
    traps: bool,
}

impl Filter {
    /// No filter.
    #[must_use]
    pub fn none() -> Self {
        Self { program: None, traps: false }
    }

    /// What the kernel is given; `None` where that is nothing.
    #[cfg(test)]
    pub(crate) fn program(&self) -> Option<&[sock_filter]> {
        self.program.as_deref()
    }

    /// Binds the calling thread, and no other, for the rest of its life.
    pub(crate) fn install(&self) -> io::Result<()> {
        let Some(program) = &self.program else { return Ok(()) };
        if self.traps {
            open_sigsys();
        }
        // PR_SET_NO_NEW_PRIVS and SECCOMP_SET_MODE_FILTER, both of this thread alone: no TSYNC.
        seccompiler::apply_filter(program).map_err(io::Error::other)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.program.as_ref().map_or(0, |program| program.len());
        f.debug_struct("Filter").field("instructions", &len).finish_non_exhaustive()
    }
}

/// Why there can be no filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JailError {
    /// The kernel cannot filter.
    #[error(
        "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER); threads can only run without: Jail::off()"
    )]
    NoSeccomp(#[source] io::Error),
    /// The kernel cannot end a violation in the way that was asked for.
    #[error("this kernel's seccomp does not know the action {action}")]
    NoAction {
        /// Its name in `seccomp(2)`.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Lets the calling thread take `SIGSYS`.
#[allow(unsafe_code, reason = "the standard library does not know signals")]
fn open_sigsys() {
    // SAFETY: an all-zero sigset_t is a valid set, sigaddset writes to it alone, and pthread_sigmask reads it and
    // changes the mask of this thread alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGSYS);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Checks that the kernel can filter, and knows the action.
#[allow(unsafe_code, reason = "a system call that libc has no function for")]
fn is_available(action: u32) -> io::Result<()> {
    // SAFETY: SECCOMP_GET_ACTION_AVAIL reads the number behind the pointer and changes nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
