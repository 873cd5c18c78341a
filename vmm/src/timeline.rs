//! Where the time of a start goes: marks that building and starting a VM leave on their way.
//!
//! A mark is one reading of the CPU's time-stamp counter and one store, made only where an embedder has asked for
//! it. The counter is read, not a clock: a vCPU's jail has no call for one, should the host's vDSO not tell the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::x86_64::ticks;

/// What has been done when a mark is made, in the order in which a start goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// The description is checked, the kernel image read, its place in memory planned, and back ends are opened.
    Planned,
    /// The KVM device is open.
    KvmOpened,
    /// Guest memory is mapped.
    MemoryMapped,
    /// Kernel, initrd and tables are in guest memory.
    Loaded,
    /// KVM has a VM with its memory and its local APICs.
    VmCreated,
    /// The vCPUs exist and have their CPUID and registers.
    VcpusCreated,
    /// [`Builder::build`](crate::Builder::build) is about to return.
    Built,
    /// The first vCPU's thread is in its jail, and about to enter the guest for the first time.
    Entering,
    /// The guest has left to user space for the first time.
    FirstExit,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Planned,
        Self::KvmOpened,
        Self::MemoryMapped,
        Self::Loaded,
        Self::VmCreated,
        Self::VcpusCreated,
        Self::Built,
        Self::Entering,
        Self::FirstExit,
    ];

    /// The phase in a word or two.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::KvmOpened => "kvm opened",
            Self::MemoryMapped => "memory mapped",
            Self::Loaded => "loaded",
            Self::VmCreated => "vm created",
            Self::VcpusCreated => "vcpus created",
            Self::Built => "built",
            Self::Entering => "entering",
            Self::FirstExit => "first exit",
        }
    }
}

/// Takes the marks of one VM's start. Clones are the same timeline.
///
/// ```no_run
/// use firecrest_vmm::{Timeline, Vm};
///
/// let timeline = Timeline::new();
/// let builder = Vm::builder().timeline(&timeline);
/// // Build, start, wait; then:
/// for (phase, since) in timeline.marks() {
///     println!("{}: {} us", phase.name(), since.as_micros());
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Timeline(Arc<Marks>);

#[derive(Debug)]
struct Marks {
    began: Instant,
    /// The counter at `began`.
    origin: u64,
    /// By phase: the counter when it was passed, 0 before.
    ticks: [AtomicU64; Phase::ALL.len()],
}

impl Timeline {
    /// A timeline that begins now.
    #[must_use]
    pub fn new() -> Self {
        let ticks_by_phase = std::array::from_fn(|_| AtomicU64::new(0));
        Self(Arc::new(Marks { began: Instant::now(), origin: ticks(), ticks: ticks_by_phase }))
    }

    /// What has been passed so far, and when, counted from the beginning.
    #[must_use]
    pub fn marks(&self) -> Vec<(Phase, Duration)> {
        let Marks { began, origin, ticks: passed } = &*self.0;
        // The counter's rate is that of the time gone by, whatever the counter counts.
        let (elapsed, counted) = (began.elapsed(), ticks().saturating_sub(*origin).max(1));
        let duration = |at: u64| {
            let nanoseconds = elapsed.as_nanos().saturating_mul(u128::from(at.saturating_sub(*origin)));
            let nanoseconds = nanoseconds.checked_div(u128::from(counted)).unwrap_or_default();
            Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
        };
        let marks = Phase::ALL.into_iter().zip(passed).map(|(phase, at)| (phase, at.load(Ordering::Relaxed)));
        marks.filter(|(_, at)| *at != 0).map(|(phase, at)| (phase, duration(at))).collect()
    }

    /// Something has been done for the first time.
    pub(crate) fn mark(&self, phase: Phase) {
        if let Some((_, at)) = Phase::ALL.iter().zip(&self.0.ticks).find(|(known, _)| **known == phase) {
            // Whoever comes second changes nothing; nobody reads anything else by this value.
            let _ = at.compare_exchange(0, ticks(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

/// Marks a phase where there is a timeline.
pub(crate) fn mark(timeline: Option<&Timeline>, phase: Phase) {
    if let Some(timeline) = timeline {
        timeline.mark(phase);
    }
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
