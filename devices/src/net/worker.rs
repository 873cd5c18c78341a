//! A pair of queues on its thread: who has something to do, and what they wait for.
//!
//! The TAP is waited for only while a direction needs it, level-triggered: what is not waited for costs
//! nothing, however much of it there is. A direction that has used up its turn is called again through
//! `again`, behind whatever else is ready.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event_manager::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::control::{Control, Pairs};
use super::receive::Receiver;
use super::spec::{CONFIG_STATUS, LINK_DOWN};
use super::tap::Tap;
use super::transmit::Transmitter;
use super::turn::{Started, count_wake_up, is_meant, stop, turn, waits};
use super::{Directions, Wait, features};
use crate::eventfd;
use crate::throttle::Throttle;
use crate::virtio::{Broken, Card, Events, Job, Line, Queue};

const TAP: u32 = 0;
const AGAIN: u32 = 1;

/// A pair of queues of a network card.
pub(super) struct Pair {
    /// Which pair it is: its queues are twice this and the next.
    index: u16,
    /// How many there are.
    count: u16,
    tap: Tap,
    mtu: Option<u16>,
    link: Arc<Link>,
    first: Option<First>,
    throttles: Directions<Throttle>,
    /// Never read: its events are edges.
    again: EventFd,
    accepted: u64,
    line: Option<Arc<Line>>,
    /// What is waited for at the TAP.
    waiting: EventSet,
    receive: Started<Receiver>,
    transmit: Started<Transmitter>,
    control: Started<Control>,
}

/// What the first pair does for all.
pub(super) struct First {
    /// What the kernel has been told.
    pub(super) offloads: u32,
    /// The other pairs, where there are any.
    pub(super) pairs: Option<Pairs>,
}

/// What the pairs of a card share.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The interface is gone, for good.
    gone: AtomicBool,
}

impl Pair {
    pub(super) fn new(
        (index, count): (u16, u16),
        tap: Tap,
        mtu: Option<u16>,
        link: Arc<Link>,
        first: Option<First>,
        throttles: Directions<Throttle>,
    ) -> io::Result<Self> {
        Ok(Self {
            index,
            count,
            tap,
            mtu,
            link,
            first,
            throttles,
            again: eventfd()?,
            accepted: 0,
            line: None,
            waiting: EventSet::empty(),
            receive: None,
            transmit: None,
            control: None,
        })
    }

    fn is_gone(&self) -> bool {
        self.link.gone.load(Ordering::SeqCst)
    }

    /// The interface has been deleted: the driver learns that the link is down. It stays so.
    fn lose_link(&self) {
        if self.link.gone.swap(true, Ordering::SeqCst) {
            return;
        }
        log::warn!("the TAP interface of a network card is gone");
        if let Some(line) = &self.line {
            line.change_config(CONFIG_STATUS, &LINK_DOWN.to_le_bytes());
        }
    }

    fn receive(&mut self) -> Result<(), Broken> {
        let gone = self.is_gone();
        if let Some((receiver, wait)) = &mut self.receive {
            let (tap, throttle) = (&self.tap, &mut self.throttles.receive);
            *wait = if gone { Wait::Gone } else { turn(receiver, |receiver| receiver.step(tap, throttle))? };
            if *wait == Wait::Gone {
                self.lose_link();
            }
        }
        Ok(())
    }

    fn transmit(&mut self) -> Result<(), Broken> {
        let gone = self.is_gone();
        if let Some((transmitter, wait)) = &mut self.transmit {
            let (tap, throttle) = ((!gone).then_some(&self.tap), &mut self.throttles.transmit);
            *wait = turn(transmitter, |transmitter| transmitter.step(tap, throttle))?;
            if *wait == Wait::Gone {
                // In the next turn, all is dropped.
                *wait = Wait::Turn;
                self.lose_link();
            }
        }
        Ok(())
    }

    fn control(&mut self) -> Result<(), Broken> {
        let pairs = self.first.as_mut().and_then(|first| first.pairs.as_mut());
        if let Some((control, wait)) = &mut self.control {
            *wait = control.turn(pairs.filter(|_| self.accepted & features::MQ != 0))?;
        }
        Ok(())
    }

    /// Waits for what the directions wait for, and no more.
    fn settle(&mut self, events: &mut Events<'_, '_>) {
        if waits(&self.receive, Wait::Turn)
            || waits(&self.transmit, Wait::Turn)
            || waits(&self.control, Wait::Turn)
        {
            // It fails only where the counter is at its maximum, and then we are called anyway.
            let _: io::Result<()> = self.again.write(1);
        }
        // Between two turns it goes on waiting: asking for less and then again for more is two calls.
        let goes_on = waits(&self.receive, Wait::Turn) && self.waiting.contains(EventSet::IN);
        let (mut wanted, gone) = (EventSet::empty(), self.is_gone());
        wanted.set(EventSet::IN, !gone && (goes_on || waits(&self.receive, Wait::Tap)));
        wanted.set(EventSet::OUT, !gone && waits(&self.transmit, Wait::Tap));
        if wanted == self.waiting {
            return;
        }
        let result = if wanted.is_empty() {
            // Errors are reported whether they are asked for or not.
            events.remove(&self.tap);
            Ok(())
        } else if self.waiting.is_empty() {
            events.add(&self.tap, TAP, wanted)
        } else {
            events.modify(&self.tap, TAP, wanted)
        };
        self.waiting = wanted;
        if let Err(error) = result {
            log::warn!("a network card cannot wait for its TAP: {error}");
            self.waiting = EventSet::empty();
        }
    }

    fn tap_is_ready(&mut self, ready: EventSet) -> Result<(), Broken> {
        let failed = ready.intersects(EventSet::ERROR | EventSet::HANG_UP);
        if (failed || ready.contains(EventSet::IN)) && waits(&self.receive, Wait::Tap) {
            count_wake_up(&mut self.receive);
            self.receive()?;
        }
        if (failed || ready.contains(EventSet::OUT)) && waits(&self.transmit, Wait::Tap) {
            count_wake_up(&mut self.transmit);
            self.transmit()?;
        }
        if failed {
            // What it had left has been read.
            self.lose_link();
        }
        Ok(())
    }

    /// Has those go on that wait for `wait`: the one with the queue `index`, or all where it is `None`.
    fn go_on(&mut self, wait: Wait, index: Option<u16>) -> Result<(), Broken> {
        if is_meant(&mut self.receive, wait, index) {
            self.receive()?;
        }
        if is_meant(&mut self.transmit, wait, index) {
            self.transmit()?;
        }
        if is_meant(&mut self.control, wait, index) {
            self.control()?;
        }
        Ok(())
    }

    /// Tells the kernel what a driver that has accepted `features` can take.
    fn set_offloads(&mut self, features: u64) -> io::Result<()> {
        let Some(first) = &mut self.first else { return Ok(()) };
        let offloads = features::offloads(features);
        if offloads != first.offloads {
            self.tap.set_offloads(offloads)?;
            if first.offloads & !offloads != 0 {
                // Frames for a driver that could take more than this one.
                self.tap.drain();
            }
            first.offloads = offloads;
        }
        Ok(())
    }

    /// Disables the other pairs. Where that fails, frames for them are lost until the driver enables them.
    fn only_first_pair(&mut self) {
        let pairs = self.first.as_mut().and_then(|first| first.pairs.as_mut());
        if let Some(Err(error)) = pairs.map(Pairs::only_first) {
            log::debug!("pairs of queues were not disabled: {error}");
        }
    }
}

impl Card for Pair {
    fn job(&self) -> Job {
        Job::Frames
    }

    fn activate(&mut self, features: u64, line: &Arc<Line>, events: &mut Events<'_, '_>) -> io::Result<()> {
        self.accepted = features;
        self.line = Some(Arc::clone(line));
        events.add(&self.again, AGAIN, EventSet::IN | EventSet::EDGE_TRIGGERED)?;
        if self.is_gone() {
            return Ok(());
        }
        if features & features::MQ == 0 {
            self.only_first_pair();
        }
        match self.set_offloads(features) {
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
                self.lose_link();
                Ok(())
            }
            result => result,
        }
    }

    fn start_queue(&mut self, queue: Queue, _events: &mut Events<'_, '_>) {
        let index = queue.index();
        let first = self.index.saturating_mul(2);
        if Some(index) == features::control_queue(self.accepted, self.count) {
            // A queue that goes on where it was belongs to a driver that has said how many pairs it uses.
            if queue.state().next_avail == 0 {
                self.only_first_pair();
            }
            self.control = Some((Control::new(queue), Wait::Driver));
        } else if index == first {
            self.receive = Some((Receiver::new(queue, self.accepted, self.mtu), Wait::Driver));
        } else if index == first.saturating_add(1) {
            self.transmit = Some((Transmitter::new(queue), Wait::Driver));
        }
    }

    fn stop_queue(&mut self, index: u16, events: &mut Events<'_, '_>) -> Option<Queue> {
        let queue = stop(&mut self.receive, index)
            .or_else(|| stop(&mut self.transmit, index))
            .or_else(|| stop(&mut self.control, index));
        self.settle(events);
        queue
    }

    fn deactivate(&mut self, events: &mut Events<'_, '_>) {
        events.remove(&self.again);
        events.remove(&self.tap);
        self.waiting = EventSet::empty();
        self.throttles.receive.clear();
        self.throttles.transmit.clear();
        self.line = None;
    }

    fn kicked(&mut self, index: u16, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        // Who waits for something else is not helped by more chains, and finds them later.
        self.go_on(Wait::Driver, Some(index))?;
        self.settle(events);
        Ok(())
    }

    fn ready(&mut self, token: u32, ready: EventSet, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        match token {
            TAP => self.tap_is_ready(ready)?,
            AGAIN => self.go_on(Wait::Turn, None)?,
            _ => {}
        }
        self.settle(events);
        Ok(())
    }

    fn patience(&self) -> Option<Duration> {
        let Directions { receive, transmit } = &self.throttles;
        [receive, transmit].into_iter().filter_map(Throttle::patience).min()
    }

    /// A wait for the rate limit is over, or both are.
    fn due(&mut self, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        let (receives, transmits) = (self.throttles.receive.ends(), self.throttles.transmit.ends());
        if receives && waits(&self.receive, Wait::Clock) {
            self.receive()?;
        }
        if transmits && waits(&self.transmit, Wait::Clock) {
            self.transmit()?;
        }
        self.settle(events);
        Ok(())
    }
}
