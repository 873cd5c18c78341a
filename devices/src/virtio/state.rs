//! A device's state, out of a transport and into another: for a pause that outlives the process.
//!
//! A state may come from anywhere. It is checked as if a driver had written it, before anything is changed.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::mmio;
use super::queue::{self, QueueState};
use super::transport::{SELECTORS, Transport, half};

/// A device as its driver sees it, to be continued elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    /// The status register.
    pub status: u32,
    /// The features the driver has accepted.
    pub features: u64,
    /// The interrupt status register.
    pub interrupt_status: u32,
    /// The selectors: device features, driver features, queue.
    pub selectors: [u32; 3],
    /// The byte of the configuration that the driver may write.
    pub writable_config: u8,
    /// The queues.
    pub queues: Vec<QueueState>,
}

/// Why a state does not fit a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The number of queues is another.
    #[error("the state has {given} queues, the device has {own}")]
    Queues {
        /// Queues of the state.
        given: usize,
        /// Queues of the device.
        own: usize,
    },
    /// Features that this device does not offer, on this host.
    #[error("the driver uses features {missing:#x}, which the device does not offer here")]
    Features {
        /// Their bits.
        missing: u64,
    },
    /// A queue that cannot be.
    #[error("queue {index} cannot be started")]
    Queue {
        /// Its index.
        index: usize,
        /// Why.
        source: queue::QueueError,
    },
}

impl Transport {
    /// Stops the device where it is, and says how its driver sees it. What is in flight is completed first.
    pub fn save(&mut self) -> TransportState {
        self.collect();
        let state = TransportState {
            status: self.status(),
            features: self.accepted,
            interrupt_status: self.page.load(mmio::INTERRUPT_STATUS),
            selectors: SELECTORS.map(|selector| self.page.load(selector)),
            writable_config: self
                .writable
                .as_ref()
                .map_or(0, |writable| writable.byte.load(Ordering::SeqCst)),
            queues: self.queues.iter().map(|slot| slot.registers).collect(),
        };
        if self.is_running() {
            self.start();
        }
        state
    }

    /// Continues what [`save`](Self::save) has recorded. The device has not been used before.
    ///
    /// # Errors
    /// The state does not fit the device; nothing is changed then.
    pub fn restore(&mut self, state: &TransportState) -> Result<(), RestoreError> {
        let (given, own) = (state.queues.len(), self.queues.len());
        if given != own {
            return Err(RestoreError::Queues { given, own });
        }
        let missing = state.features & !self.offered;
        if missing != 0 {
            return Err(RestoreError::Features { missing });
        }
        for (index, (slot, registers)) in self.queues.iter().zip(&state.queues).enumerate() {
            if registers.ready {
                queue::check(registers, slot.max, &self.memory)
                    .map_err(|source| RestoreError::Queue { index, source })?;
            }
        }
        for (slot, registers) in self.queues.iter_mut().zip(&state.queues) {
            slot.registers = *registers;
            slot.size = registers.size.into();
        }
        self.accepted = state.features;
        for (register, value) in SELECTORS.into_iter().zip(state.selectors) {
            self.page.store(register, value);
        }
        self.page.store(mmio::DEVICE_FEATURES, half(self.offered, state.selectors[0]));
        self.page.store(mmio::INTERRUPT_STATUS, state.interrupt_status);
        self.page.store(mmio::STATUS, state.status);
        self.show_queue();
        self.set_writable(state.writable_config);
        if self.is_running() {
            self.start();
        }
        Ok(())
    }
}
