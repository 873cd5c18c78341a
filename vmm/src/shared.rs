//! What the threads of one VM and the handles to it have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::console::{Flow, Port};
use crate::lifecycle::{Lifecycle, Outcome};

/// What a VM's threads and handles share. It holds nothing of KVM, so that a handle that is kept keeps no VM.
pub(crate) struct Shared {
    lifecycle: Lifecycle,
    serial: Arc<Port>,
    /// By vCPU: returns of `KVM_RUN`.
    exits: Vec<AtomicU64>,
}

impl Shared {
    pub(crate) fn new(lifecycle: Lifecycle, serial: Arc<Port>, vcpus: usize) -> Self {
        Self { lifecycle, serial, exits: (0..vcpus).map(|_| AtomicU64::new(0)).collect() }
    }

    /// `KVM_RUN` of a vCPU has returned.
    pub(crate) fn count_exit(&self, vcpu: u8) {
        if let Some(exits) = self.exits.get(usize::from(vcpu)) {
            exits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// By vCPU: how often `KVM_RUN` has returned.
    pub(crate) fn exits(&self) -> Vec<u64> {
        self.exits.iter().map(|exits| exits.load(Ordering::Relaxed)).collect()
    }

    pub(crate) fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    pub(crate) fn serial(&self) -> &Arc<Port> {
        &self.serial
    }

    /// Stops all vCPUs, those too that wait for the console; see [`Lifecycle::pause`].
    pub(crate) fn pause(&self) -> bool {
        self.serial.set_flow(Flow::Released);
        self.lifecycle.pause()
    }

    /// Lets all vCPUs go on; see [`Lifecycle::resume`].
    pub(crate) fn resume(&self) -> bool {
        self.serial.set_flow(Flow::Normal);
        self.lifecycle.resume()
    }

    /// Ends the run, and lets nobody wait for a vCPU or keep one waiting.
    pub(crate) fn end(&self, outcome: Outcome) {
        self.lifecycle.end(outcome);
        self.serial.set_flow(Flow::Ended);
    }
}
