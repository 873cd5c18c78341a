//! One VM's life, as seen by all of its threads: running, paused, ended.
//!
//! Who promises what:
//! - A vCPU thread calls [`Lifecycle::enroll`] before its first [`Lifecycle::checkpoint`], which it then
//!   calls after every return of `KVM_RUN` that a kick may have caused, and [`Lifecycle::retire`] last.
//! - [`Lifecycle::pause`] returns when no vCPU runs, nor will until [`Lifecycle::resume`].
//! - [`Lifecycle::end`] can be called by any thread at any time; the first call decides how the run ended.
//!
//! Why no kick is lost: the phase is changed first, under the lock, then the kick is sent (`kick.rs`). Its signal is
//! blocked in the thread and opened by KVM only inside `KVM_RUN` (`KVM_SET_SIGNAL_MASK`), where a pending one
//! makes it return at once. So a thread that is anywhere between its checkpoint and `KVM_RUN` still finds it
//! pending there. The thread takes the pending signal *before* it reads the phase: a kick sent after that is
//! still pending for the next `KVM_RUN`, one sent before has its phase visible. One that was sent before the thread
//! enrolled reached nobody, and its phase is found by the first checkpoint.
//!
//! Why no pipe is ever full: a pause kicks only a VM that runs, a resume clears, and there is one end.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::WaitError;
use crate::exit::Exit;
use crate::kick::{Kick, Pending};

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
    /// By vCPU.
    kicks: Vec<Kick>,
    pending: Pending,
    kick_signal: libc::c_int,
}

struct State {
    phase: Phase,
    outcome: Option<Outcome>,
    /// vCPU threads waiting in a checkpoint.
    parked: usize,
    /// vCPU threads that have not retired, whether they have enrolled yet or not.
    alive: usize,
    /// The boot CPU's thread is on its way into the guest.
    entering: bool,
}

impl Lifecycle {
    /// For a VM of this many vCPUs, whose threads are kicked with this signal.
    pub(crate) fn new(vcpus: usize, kick_signal: libc::c_int) -> io::Result<Self> {
        let state = State { phase: Phase::Running, outcome: None, parked: 0, alive: vcpus, entering: false };
        let kicks = (0..vcpus).map(|_| Kick::new()).collect::<io::Result<_>>()?;
        let pending = Pending::new(kick_signal)?;
        Ok(Self { state: Mutex::new(state), changed: Condvar::new(), kicks, pending, kick_signal })
    }

    /// What vCPUs' threads take their kicks from.
    pub(crate) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// The calling thread is that of vCPU `index`. It has blocked every signal, and is not jailed yet.
    pub(crate) fn enroll(&self, index: usize) -> io::Result<()> {
        self.kicks.get(index).map_or(Ok(()), |kick| kick.aim(self.kick_signal))
    }

    /// The boot CPU's thread enters the guest next.
    pub(crate) fn enter(&self) {
        self.lock().entering = true;
        self.changed.notify_all();
    }

    /// Waits for the boot CPU to enter the guest, or never to do so.
    pub(crate) fn wait_for_entry(&self) {
        let mut state = self.lock();
        while !state.entering && state.phase != Phase::Ended && state.alive != 0 {
            state = self.wait_for_change(state);
        }
    }

    /// The thread of a vCPU has ended, or will never start.
    pub(crate) fn retire(&self) {
        let mut state = self.lock();
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
            self.kick();
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
            self.kicks.iter().for_each(Kick::clear);
            self.changed.notify_all();
        }
        state.phase != Phase::Ended
    }

    /// Ends the run; the first outcome counts.
    pub(crate) fn end(&self, outcome: Outcome) {
        let mut state = self.lock();
        if state.phase != Phase::Ended {
            state.phase = Phase::Ended;
            state.outcome = Some(outcome);
            self.kick();
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

    /// Waits for the end of the run.
    pub(crate) fn wait(&self) -> Outcome {
        let mut state = self.lock();
        loop {
            match &state.outcome {
                Some(outcome) => return outcome.clone(),
                None => state = self.wait_for_change(state),
            }
        }
    }

    /// Has every vCPU come to its checkpoint. The phase has been changed.
    fn kick(&self) {
        self.kicks.iter().for_each(Kick::send);
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
