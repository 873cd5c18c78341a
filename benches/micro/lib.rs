//! A device whose queues are handed to a benchmark, in place of a worker's.

#![allow(clippy::missing_errors_doc, reason = "for the benchmarks beside it alone")]

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use event_manager::EventSet;
use firecrest_devices::virtio::{Broken, Card, Device, Events, Job, Kind, Line, Queue};

/// A card that gives its queues away as they start.
struct Giver(Sender<Queue>);

impl Card for Giver {
    fn job(&self) -> Job {
        Job::Disk
    }

    fn activate(&mut self, _: u64, _: &Arc<Line>, _: &mut Events<'_, '_>) -> io::Result<()> {
        Ok(())
    }

    fn start_queue(&mut self, queue: Queue, _: &mut Events<'_, '_>) {
        // Whoever wanted it may be gone.
        let _ = self.0.send(queue);
    }

    fn stop_queue(&mut self, _: u16, _: &mut Events<'_, '_>) -> Option<Queue> {
        None
    }

    fn deactivate(&mut self, _: &mut Events<'_, '_>) {}

    fn kicked(&mut self, _: u16, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        Ok(())
    }

    fn ready(&mut self, _: u32, _: EventSet, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        Ok(())
    }
}

/// A disk by its number, with one queue, which comes out of the receiver once the driver has started it.
#[must_use]
pub fn device() -> (Device, Receiver<Queue>) {
    let (sender, receiver) = channel();
    let device = Device {
        kind: Kind::Block,
        features: 0,
        config: vec![0; 8],
        writable: None,
        queue_sizes: vec![256],
        cards: vec![(vec![0], Box::new(Giver(sender)))],
        back_end: None,
    };
    (device, receiver)
}
