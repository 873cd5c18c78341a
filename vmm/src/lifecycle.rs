//! One VM's life, as seen by all of its threads: running, paused, ended.
//!
//! Who promises what:
//! - A vCPU thread calls [`Lifecycle::enroll`] before its first [`Lifecycle::checkpoint`], which it then
//!   calls after every return of `KVM_RUN` that a kick may have caused, and [`Lifecycle::retire`] last.
//! - [`Lifecycle::pause`] returns when no vCPU runs, nor will until [`Lifecycle::resume`].
//! - [`Lifecycle::end`] can be called by any vCPU thread and by any of the embedder's, at any time; the first
//!   call decides how the run ended. A device's thread calls [`Lifecycle::fail`] instead: its jail has no way to
//!   send a signal. So the vCPUs are kicked by whoever waits for the end ([`Lifecycle::wait`]), and until
//!   somebody does they may run on.
//!
//! Why no kick is lost: the phase is changed first, under the lock, then the signal is sent. The signal is
//! blocked in the thread and opened by KVM only inside `KVM_RUN` (`KVM_SET_SIGNAL_MASK`), where a pending one
//! makes it return at once. So a thread that is anywhere between its checkpoint and `KVM_RUN` still finds it
//! pending there. The thread takes the pending signal *before* it reads the phase: a kick sent after that is
//! still pending for the next `KVM_RUN`, one sent before has its phase visible.
//!
//! Why no thread is kicked that is not ours: threads are listed from `enroll` to `retire`, both under the
//! lock, and are kicked only while listed and under the lock; so the thread is alive, with the signal
//! blocked since before it enrolled. No handler is installed for the signal, and none ever runs.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::WaitError;
use crate::exit::Exit;

/// How a run ended, or what went wrong in the monitor itself.
pub(crate) type Outcome = Result<Exit, WaitError>;

/// What a vCPU thread is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Run,
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Paused,
    Ended,
}

/// The state shared by a VM's threads.
pub(crate) struct Lifecycle {
    state: Mutex<State>,
    changed: Condvar,
    kick_signal: libc::c_int,
    process: u32,
}

struct State {
    phase: Phase,
    outcome: Option<Outcome>,
    /// vCPU threads waiting in a checkpoint.
    parked: usize,
    /// vCPU threads that have not retired, whether they have enrolled yet or not.
    alive: usize,
    /// By vCPU: its thread, while it can be kicked.
    threads: Vec<Option<libc::pid_t>>,
}

impl Lifecycle {
    /// For a VM of this many vCPUs, whose threads are kicked with this signal.
    pub(crate) fn new(vcpus: usize, kick_signal: libc::c_int) -> Self {
        let state = State {
            phase: Phase::Running,
            outcome: None,
            parked: 0,
            alive: vcpus,
            threads: vec![None; vcpus],
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), kick_signal, process: std::process::id() }
    }

    pub(crate) fn kick_signal(&self) -> libc::c_int {
        self.kick_signal
    }

    /// Lists the calling thread as that of vCPU `index`. It has blocked every signal, and is not jailed yet.
    pub(crate) fn enroll(&self, index: usize) {
        // SAFETY: takes nothing and cannot fail.
        let thread = unsafe { libc::gettid() };
        if let Some(slot) = self.lock().threads.get_mut(index) {
            *slot = Some(thread);
        }
    }

    /// Strikes the thread of vCPU `index` off the list; also for one that never started.
    pub(crate) fn retire(&self, index: usize) {
        let mut state = self.lock();
        if let Some(slot) = state.threads.get_mut(index) {
            *slot = None;
        }
        state.alive = state.alive.saturating_sub(1);
        self.changed.notify_all();
    }

    /// Waits while the VM is paused, and says how to go on. `park` is called once where it has to wait.
    pub(crate) fn checkpoint(&self, park: impl FnOnce()) -> Next {
        let mut state = self.lock();
        if state.phase == Phase::Paused {
            park();
            state.parked = state.parked.saturating_add(1);
            self.changed.notify_all();
            while state.phase == Phase::Paused {
                state = self.wait_for_change(state);
            }
            state.parked = state.parked.saturating_sub(1);
        }
        if state.phase == Phase::Ended { Next::Leave } else { Next::Run }
    }

    /// Stops all vCPUs, and returns once they have stopped. False where the run has ended.
    pub(crate) fn pause(&self) -> bool {
        let mut state = self.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::Paused;
            self.kick(&state);
        }
        while state.phase == Phase::Paused && state.parked < state.alive {
            state = self.wait_for_change(state);
        }
        state.phase != Phase::Ended
    }

    /// Lets all vCPUs go on. False where the run has ended.
    pub(crate) fn resume(&self) -> bool {
        let mut state = self.lock();
        if state.phase == Phase::Paused {
            state.phase = Phase::Running;
            self.changed.notify_all();
        }
        state.phase != Phase::Ended
    }

    /// Ends the run; the first outcome counts.
    pub(crate) fn end(&self, outcome: Outcome) {
        self.conclude(outcome, |state| self.kick(state));
    }

    /// As [`end`](Self::end), from a thread that cannot send a signal.
    pub(crate) fn fail(&self, outcome: Outcome) {
        self.conclude(outcome, |_| ());
    }

    fn conclude(&self, outcome: Outcome, kick: impl FnOnce(&State)) {
        let mut state = self.lock();
        if state.phase != Phase::Ended {
            state.phase = Phase::Ended;
            state.outcome = Some(outcome);
            kick(&state);
            self.changed.notify_all();
        }
    }

    /// Whether the run has ended.
    pub(crate) fn ended(&self) -> bool {
        self.lock().phase == Phase::Ended
    }

    /// How the run ended, if it has.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.lock().outcome.clone()
    }

    /// Waits for the end of the run, and sees to it that the vCPUs learn of it.
    pub(crate) fn wait(&self) -> Outcome {
        let mut state = self.lock();
        loop {
            match &state.outcome {
                Some(outcome) => {
                    self.kick(&state);
                    return outcome.clone();
                }
                None => state = self.wait_for_change(state),
            }
        }
    }

    fn kick(&self, state: &State) {
        for thread in state.threads.iter().flatten() {
            // Not by pthread_kill, which makes more calls than a jailed vCPU has.
            // SAFETY: takes numbers only. A listed thread is alive: it takes itself off the list, under the
            // lock that our caller holds, before it ends. The signal is blocked there, so that nothing is run.
            unsafe { libc::syscall(libc::SYS_tgkill, self.process, *thread, self.kick_signal) };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock; were it poisoned, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_change<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
