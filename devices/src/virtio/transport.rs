//! The virtio-mmio transport: registers and negotiation (VIRTIO 1.2, sections 2.1 to 2.4, 3.1 and 4.2).
//!
//! It decides what the driver's writes mean and keeps the register page true; of the device it knows the
//! description and how to reach its workers. It runs on vCPU threads, under its owner's lock.
//!
//! Reads cost nothing here: see [`RegisterPage`]. Where that page is mapped into the guest and an eventfd
//! takes acknowledgements of the used-buffer interrupt alone, the interrupt status keeps that bit set once it
//! was: nobody clears it. That is sound: the bit says "look at the rings", a driver that looks finds in the
//! rings whether there is anything, and a configuration interrupt that comes with the bit still set costs it
//! one look more. An acknowledgement that holds the configuration bit is another value, no eventfd takes it,
//! and it arrives here. No used buffer is missed: its interrupt is a new edge whatever the bit was before.
//!
//! | threat | answer |
//! |---|---|
//! | writes of odd sizes, at odd offsets, to read-only registers | ignored |
//! | status bits out of order, cleared one by one, set before their time | ignored: the status shows what holds |
//! | features not offered, or without VERSION_1 | FEATURES_OK stays clear |
//! | a queue of a bad size, out of memory, overlapping itself | stays not ready, DEVICE_NEEDS_RESET |
//! | queue registers changed while the queue is ready | ignored |
//! | kicks of queues that are not there or not ready | ignored |
//! | resets in a loop, at any moment | each waits until the device has let go of the guest's memory |

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::Memory;
use super::device::{BackEnd, Device, Kind};
use super::line::Line;
use super::mmio::{self, feature, status};
use super::page::RegisterPage;
use super::queue::{self, Queue, QueueError, QueueState};
use super::stats::{QueueCounts, QueueStats};
use super::worker::{Command, Remote, Worker, pair};
use crate::Interrupt;
use crate::eventfd;

/// Features that every device here has.
const FEATURES: u64 = feature::VERSION_1 | feature::RING_INDIRECT_DESC | feature::RING_EVENT_IDX;

/// A device behind its registers.
#[derive(Debug)]
pub struct Transport {
    kind: Kind,
    pub(super) page: RegisterPage,
    line: Arc<Line>,
    pub(super) memory: Arc<Memory>,
    pub(super) offered: u64,
    pub(super) accepted: u64,
    pub(super) queues: Vec<QueueSlot>,
    remotes: Vec<Remote>,
    back_end: Option<Arc<dyn BackEnd>>,
    pub(super) writable: Option<Writable>,
}

/// The byte of the configuration that the driver may write.
#[derive(Debug)]
pub(super) struct Writable {
    offset: usize,
    pub(super) byte: Arc<AtomicU8>,
    /// What it is after a reset.
    initial: u8,
}

/// A queue's registers and what belongs to it whether it is started or not.
#[derive(Debug)]
pub(super) struct QueueSlot {
    pub(super) max: u16,
    /// What the driver wrote, which need not fit [`QueueState::size`].
    pub(super) size: u32,
    pub(super) registers: QueueState,
    kick: Arc<EventFd>,
    stats: Arc<QueueStats>,
}

impl Transport {
    /// Puts `device` behind the registers in `page`. The workers are to be run, each by a thread of its own.
    ///
    /// # Errors
    /// The host has no descriptors left.
    pub fn new(
        device: Device,
        page: RegisterPage,
        interrupt: Box<dyn Interrupt + Sync>,
        memory: Arc<Memory>,
    ) -> io::Result<(Self, Vec<Worker>)> {
        let queues =
            device.queue_sizes.iter().map(|max| QueueSlot::new(*max)).collect::<io::Result<Vec<_>>>()?;
        let (mut remotes, mut workers) = (Vec::new(), Vec::new());
        for (indices, card) in device.cards {
            let kicks: BTreeMap<_, _> = indices
                .iter()
                .filter_map(|index| Some((*index, queues.get(usize::from(*index))?)))
                .map(|(index, slot)| (index, (Arc::clone(&slot.kick), Arc::clone(&slot.stats))))
                .collect();
            let (remote, worker) = pair(card, indices, kicks)?;
            remotes.push(remote);
            workers.push(worker);
        }
        let line = Arc::new(Line::new(page.clone(), interrupt));
        let transport = Self {
            kind: device.kind,
            page,
            line,
            memory,
            offered: device.features | FEATURES,
            accepted: 0,
            queues,
            remotes,
            back_end: device.back_end,
            writable: device.writable.and_then(|(offset, byte)| {
                Some(Writable { offset, byte, initial: *device.config.get(offset)? })
            }),
        };
        transport.page.write_config(0, &device.config);
        transport.fill_page();
        Ok((transport, workers))
    }

    /// What kind of device it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The eventfds that kick the queues, by index: what a write of the index to [`mmio::QUEUE_NOTIFY`] is to
    /// signal.
    pub fn kicks(&self) -> impl Iterator<Item = &EventFd> {
        self.queues.iter().map(|slot| &*slot.kick)
    }

    /// What has been counted of each queue.
    #[must_use]
    pub fn counts(&self) -> Vec<QueueCounts> {
        self.queues.iter().map(|slot| slot.stats.counts()).collect()
    }

    /// Looks at the device's back end again, and has the device tell its driver of what has changed.
    pub fn rescan(&self) {
        if let Some(back_end) = &self.back_end {
            back_end.look_again();
        }
        self.remotes.iter().for_each(|remote| remote.send(Command::Rescan));
    }

    /// Ends the workers, once they have finished what is in flight. The registers stay as they are.
    pub fn close(&mut self) {
        self.remotes.clear();
        self.back_end = None;
    }

    /// The guest reads `data.len()` bytes at `offset` into the registers.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        self.page.read(offset, data);
    }

    /// The guest writes `data` at `offset` into the registers.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= mmio::CONFIG {
            return self.write_config(offset.wrapping_sub(mmio::CONFIG), data);
        }
        // Every register is 32 bits wide, and is only defined for accesses of that size.
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(bytes);
        match offset {
            mmio::DEVICE_FEATURES_SEL => {
                self.page.store(offset, value);
                self.page.store(mmio::DEVICE_FEATURES, half(self.offered, value));
            }
            mmio::DRIVER_FEATURES_SEL => self.page.store(offset, value),
            mmio::DRIVER_FEATURES => self.accept(value),
            mmio::QUEUE_SEL => {
                self.page.store(offset, value);
                self.show_queue();
            }
            mmio::QUEUE_NUM => self.configure(|slot| slot.size = value),
            mmio::QUEUE_DESC_LOW => self.configure(|slot| low(&mut slot.registers.desc_table, value)),
            mmio::QUEUE_DESC_HIGH => self.configure(|slot| high(&mut slot.registers.desc_table, value)),
            mmio::QUEUE_DRIVER_LOW => self.configure(|slot| low(&mut slot.registers.avail_ring, value)),
            mmio::QUEUE_DRIVER_HIGH => self.configure(|slot| high(&mut slot.registers.avail_ring, value)),
            mmio::QUEUE_DEVICE_LOW => self.configure(|slot| low(&mut slot.registers.used_ring, value)),
            mmio::QUEUE_DEVICE_HIGH => self.configure(|slot| high(&mut slot.registers.used_ring, value)),
            mmio::QUEUE_READY => self.set_ready(value == 1),
            mmio::QUEUE_NOTIFY => self.kick(value),
            mmio::INTERRUPT_ACK => self.page.clear(mmio::INTERRUPT_STATUS, value),
            mmio::STATUS => self.set_status(value),
            _ => {}
        }
    }

    fn fill_page(&self) {
        let constants = [
            (mmio::MAGIC_VALUE, mmio::MAGIC),
            (mmio::VERSION, mmio::LAYOUT_VERSION),
            (mmio::DEVICE_ID, self.kind as u32),
            (mmio::VENDOR_ID, mmio::VENDOR),
            (mmio::DEVICE_FEATURES, half(self.offered, 0)),
        ];
        constants.into_iter().for_each(|(register, value)| self.page.store(register, value));
        // "A region that does not exist has length -1" (section 4.2.2).
        (mmio::SHM_LEN_LOW..=mmio::SHM_BASE_HIGH)
            .step_by(4)
            .for_each(|register| self.page.store(register, u32::MAX));
        self.show_queue();
    }

    pub(super) fn status(&self) -> u32 {
        self.page.load(mmio::STATUS)
    }

    pub(super) fn is_running(&self) -> bool {
        self.status() & status::DRIVER_OK != 0
    }

    fn needs_reset(&self) -> bool {
        self.status() & status::NEEDS_RESET != 0
    }

    /// The driver accepts features: between DRIVER and FEATURES_OK, and at no other time.
    fn accept(&mut self, value: u32) {
        let status = self.status();
        if status & status::DRIVER == 0 || status & status::FEATURES_OK != 0 {
            return;
        }
        match self.page.load(mmio::DRIVER_FEATURES_SEL) {
            0 => low(&mut self.accepted, value),
            1 => high(&mut self.accepted, value),
            _ => {}
        }
    }

    fn features_are_acceptable(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & feature::VERSION_1 != 0
    }

    /// The driver writes the status: 0 resets; otherwise bits are added, each in its order.
    fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let before = self.status();
        if value & status::FAILED != 0 {
            self.page.set(mmio::STATUS, status::FAILED);
        }
        for step in status::STEPS {
            if before & step != 0 {
                continue;
            }
            if value & step == 0 || step == status::FEATURES_OK && !self.features_are_acceptable() {
                // A step that is left out, or not granted: none of the later ones holds.
                return;
            }
            self.page.set(mmio::STATUS, step);
            if step == status::DRIVER_OK {
                self.start();
            }
        }
    }

    /// Hands all ready queues to the workers.
    pub(super) fn start(&mut self) {
        if self.needs_reset() {
            return;
        }
        for remote in &self.remotes {
            let queues = remote.queues.iter().filter_map(|index| self.started(*index)).collect();
            remote.send(Command::Start { features: self.accepted, line: Arc::clone(&self.line), queues });
        }
    }

    /// The queue of this index, to be handed to its worker; `None` where it is not ready.
    fn started(&self, index: u16) -> Option<Queue> {
        let slot = self.queues.get(usize::from(index)).filter(|slot| slot.registers.ready)?;
        let event_idx = self.accepted & feature::RING_EVENT_IDX != 0;
        let (memory, line) = (Arc::clone(&self.memory), Arc::clone(&self.line));
        let stats = Arc::clone(&slot.stats);
        // It was checked when it was declared ready.
        Queue::start(index, slot.max, &slot.registers, event_idx, memory, line, stats).ok()
    }

    /// Stops all workers, and keeps how far the queues have come.
    pub(super) fn collect(&mut self) {
        for remote in &self.remotes {
            for (index, state) in remote.ask(|reply| Command::Stop { reply }).unwrap_or_default() {
                if let Some(slot) = self.queues.get_mut(usize::from(index)) {
                    slot.registers = state;
                }
            }
        }
    }

    fn reset(&mut self) {
        if self.is_running() {
            self.collect();
        }
        for slot in &mut self.queues {
            (slot.registers, slot.size) = (QueueState::default(), 0);
        }
        self.accepted = 0;
        if let Some(Writable { initial, .. }) = self.writable {
            self.set_writable(initial);
        }
        for register in SELECTORS.into_iter().chain([mmio::INTERRUPT_STATUS, mmio::STATUS]) {
            self.page.store(register, 0);
        }
        self.page.store(mmio::DEVICE_FEATURES, half(self.offered, 0));
        self.show_queue();
    }

    fn selected(&self) -> Option<u16> {
        let index = u16::try_from(self.page.load(mmio::QUEUE_SEL)).ok()?;
        (usize::from(index) < self.queues.len()).then_some(index)
    }

    /// Shows the selected queue's registers.
    pub(super) fn show_queue(&self) {
        let slot = self.selected().and_then(|index| self.queues.get(usize::from(index)));
        let (max, ready) = slot.map_or((0, false), |slot| (slot.max, slot.registers.ready));
        self.page.store(mmio::QUEUE_NUM_MAX, max.into());
        self.page.store(mmio::QUEUE_READY, ready.into());
    }

    /// The selected queue, which the driver may change: after FEATURES_OK and while it is not ready.
    fn configure(&mut self, change: impl FnOnce(&mut QueueSlot)) {
        let allowed = self.status() & status::FEATURES_OK != 0;
        let index = self.selected().filter(|_| allowed);
        let slot = index.and_then(|index| self.queues.get_mut(usize::from(index)));
        if let Some(slot) = slot.filter(|slot| !slot.registers.ready) {
            change(slot);
        }
    }

    fn set_ready(&mut self, ready: bool) {
        let Some(index) = self.selected() else { return };
        if ready {
            let memory = Arc::clone(&self.memory);
            let mut made = None;
            self.configure(|slot| made = Some(slot.make_ready(&memory)));
            match made {
                Some(Ok(())) if self.is_running() && !self.needs_reset() => self.start_late(index),
                Some(Err(error)) => {
                    log::debug!("queue {index} of a {:?} device is refused: {error}", self.kind);
                    self.line.needs_reset();
                }
                // One that is ready already goes on: to start it again would be to forget what is in flight.
                None | Some(Ok(())) => {}
            }
        } else {
            self.stop_queue(index);
        }
        self.show_queue();
    }

    /// A queue that is declared ready after DRIVER_OK.
    fn start_late(&self, index: u16) {
        let remote = self.remotes.iter().find(|remote| remote.queues.contains(&index));
        if let (Some(remote), Some(queue)) = (remote, self.started(index)) {
            remote.send(Command::StartQueue(queue));
        }
    }

    fn stop_queue(&mut self, index: u16) {
        let running = self.is_running();
        let Some(slot) = self.queues.get_mut(usize::from(index)).filter(|slot| slot.registers.ready) else {
            return;
        };
        if let Some(remote) = self.remotes.iter().find(|remote| running && remote.queues.contains(&index)) {
            remote.ask(|reply| Command::StopQueue { index, reply });
        }
        slot.registers = QueueState::default();
    }

    /// A kick that no eventfd took.
    fn kick(&self, value: u32) {
        let slot = usize::try_from(value).ok().and_then(|index| self.queues.get(index));
        if let Some(slot) = slot.filter(|slot| slot.registers.ready) {
            // It fails only where the counter is at its maximum, and then the worker is awake.
            let _: io::Result<()> = slot.kick.write(1);
        }
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        let Some(writable) = self.writable.as_ref().filter(|_| self.status() & status::DRIVER != 0) else {
            return;
        };
        let within =
            (writable.offset as u64).checked_sub(offset).and_then(|within| usize::try_from(within).ok());
        if let Some(value) = within.and_then(|within| data.get(within)) {
            self.set_writable(*value);
        }
    }

    pub(super) fn set_writable(&self, value: u8) {
        if let Some(Writable { offset, byte, .. }) = &self.writable {
            byte.store(value, Ordering::SeqCst);
            self.page.write_config(*offset, &[value]);
        }
    }
}

pub(super) const SELECTORS: [u64; 3] =
    [mmio::DEVICE_FEATURES_SEL, mmio::DRIVER_FEATURES_SEL, mmio::QUEUE_SEL];

impl QueueSlot {
    fn new(max: u16) -> io::Result<Self> {
        Ok(Self {
            max,
            size: 0,
            registers: QueueState::default(),
            kick: Arc::new(eventfd()?),
            stats: Arc::default(),
        })
    }

    /// Takes its registers for a queue's, if they can be.
    fn make_ready(&mut self, memory: &Memory) -> Result<(), QueueError> {
        let Self { max, size, .. } = *self;
        self.registers.size = u16::try_from(size).map_err(|_| QueueError::Size { size, max })?;
        queue::check(&self.registers, max, memory)?;
        self.registers.ready = true;
        Ok(())
    }
}

/// The half of 64 feature bits that a selector chooses; bits 64 and up are not there.
pub(super) fn half(features: u64, selector: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
    match selector {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn low(register: &mut u64, value: u32) {
    *register = *register & !0xffff_ffff | u64::from(value);
}

fn high(register: &mut u64, value: u32) {
    *register = *register & 0xffff_ffff | u64::from(value) << 32;
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
