//! A PID namespace, and the process that stays outside of it.
//!
//! No process can move into a PID namespace: only its children are born there. And a VM cannot be handed to a
//! child, since KVM serves none but the process that made it. So the process forks before there is a VM. The child
//! is the first process of the namespace and goes on; the parent is its guardian and does three things until the
//! child ends: it passes on signals that are sent to it, waits, and ends as the child did. If the guardian is
//! killed, so is the child.
//!
//! What keys of a terminal send goes to both anyway and is not passed on. A signal that somebody sends to the whole
//! process group reaches the child by both ways, as one or as two.
//!
//! The first process of a PID namespace is not ended by a signal that it neither waits for nor has a handler for, as
//! `SIGUSR2` may be. What ends a jailed thread's process (`SIGSYS`), a fault, and `SIGKILL` from outside do end it.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use super::error::{LockError, cannot};
use super::namespaces;
use super::sys::{check, prctl};

/// Not for the child, or not to be held back.
const NOT_PASSED_ON: [libc::c_int; 9] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGCONT,
];

/// Goes on in a child that is alone in a PID namespace. The process that calls it does not come back from it.
pub(super) fn enter() -> Result<(), LockError> {
    namespaces::make(libc::CLONE_NEWPID, "a PID namespace")?;
    let alive = io::pipe().map_err(cannot("make a pipe"))?;
    // Blocked before there is a child, so that none is lost; the child has the mask that the caller had.
    let (signals, mask) = block_signals();
    // SAFETY: the process has one thread, so that nothing in the child is held by a thread that it does not have.
    match check(unsafe { libc::fork() }).map_err(cannot("fork"))? {
        0 => {
            // SAFETY: the mask is the one that was set before.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut()) };
            die_with_parent()?;
            let (reader, writer) = alive;
            drop(writer);
            // The parent may have died before the line above last but one.
            if has_ended(&reader) {
                exit(1);
            }
            Ok(())
        }
        child => guard(libc::pid_t::try_from(child).unwrap_or(libc::pid_t::MAX), &signals),
    }
}

/// Has the kernel kill the process when its guardian dies.
pub(super) fn die_with_parent() -> Result<(), LockError> {
    prctl(libc::PR_SET_PDEATHSIG, SIGKILL, 0).map(drop).map_err(cannot("be killed with the guardian"))
}

const SIGKILL: libc::c_ulong = 9;

/// Blocks all signals that are to be passed on, and the child's end; gives them, and the mask that was.
fn block_signals() -> (libc::sigset_t, libc::sigset_t) {
    let (mut signals, mut mask) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the set is initialised by the first call, the old mask by the last; none can fail with these arguments.
    unsafe {
        // A caller that ignores the end of its children would have them vanish.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::sigfillset(signals.as_mut_ptr());
        for signal in NOT_PASSED_ON {
            libc::sigdelset(signals.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), mask.as_mut_ptr());
        (signals.assume_init(), mask.assume_init())
    }
}

/// Whether the pipe's other end is closed.
fn has_ended(pipe: &io::PipeReader) -> bool {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one entry, which lives as long as the call; it does not wait.
    unsafe { libc::poll(&raw mut poll, 1, 0) };
    poll.revents & libc::POLLHUP != 0
}

fn guard(child: libc::pid_t, signals: &libc::sigset_t) -> ! {
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: both pointers are to values of ours; zero is a valid `siginfo_t`.
        let (signal, info) = unsafe { (libc::sigwaitinfo(signals, info.as_mut_ptr()), info.assume_init()) };
        if signal == libc::SIGCHLD {
            let mut status = 0;
            // SAFETY: room for a status.
            if unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == child {
                end_as(status);
            }
        } else if signal > 0 && !is_of_a_key(signal, &info) {
            // SAFETY: takes no pointers. The child has not been waited for, so that the number is its own.
            unsafe { libc::kill(child, signal) };
        }
    }
}

/// Whether a terminal sent it to its foreground, where the child is as well. That a terminal is gone, though, it
/// tells the first process of a session alone, which the guardian may be.
fn is_of_a_key(signal: libc::c_int, info: &libc::siginfo_t) -> bool {
    matches!(signal, libc::SIGINT | libc::SIGQUIT) && info.si_code == libc::SI_KERNEL
}

/// Ends as the child did.
fn end_as(status: libc::c_int) -> ! {
    if !libc::WIFSIGNALED(status) {
        exit(libc::WEXITSTATUS(status));
    }
    let signal = libc::WTERMSIG(status);
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a limit that is read, and a set that is initialised before it is used. The guardian's own memory is
    // nobody's interest.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
    // Not reached, but by a signal that does not end a process.
    exit(128_i32.saturating_add(signal))
}

/// Ends at once. What was in the process's buffers when it forked is the child's to write.
fn exit(code: libc::c_int) -> ! {
    // SAFETY: takes no pointers, and does not return.
    unsafe { libc::_exit(code) }
}
