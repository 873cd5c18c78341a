//! The broker: the thread of the device that opens and closes sockets, and never sees the guest's memory.
//!
//! It hands over who connects to the device's socket, dials whom the worker asks for, and closes what the worker is done
//! with. It waits for nobody, keeps nothing, and reads and writes no socket. What a guest can bring it to is to dial sockets
//! of the device's own path: a port number is all it gets from there.
//!
//! | threat | answer |
//! |---|---|
//! | clients without end | accepted while there are seats; the next ones wait in the socket's queue |
//! | a program that listens and does not accept | the worker is told, and asks again |
//! | a guest that connects without end | the worker has a limit on what is ordered at once |
//! | no descriptors left | nothing is accepted until the worker asks for it |

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use event_manager::EventSet;

use super::dial::dial;
use super::listener::Listener;
use super::mailbox::{Call, Delivery, Mailbox, Order, Seats};
use crate::virtio::{Broken, Card, Events, Job, Line, Queue};

const ORDERS: u32 = 0;
const LISTENER: u32 = 1;

/// The card without queues.
#[derive(Debug)]
pub(super) struct Broker {
    pub listener: Listener,
    pub path: PathBuf,
    pub orders: Arc<Mailbox<Order>>,
    pub deliveries: Arc<Mailbox<Delivery>>,
    pub seats: Seats,
}

impl Broker {
    /// Does what has been ordered. The worker orders no more than it can have answered.
    fn carry_out(&self) {
        while let Some(order) = self.orders.take() {
            match order {
                Order::Dial(call) => self.dial(call),
                Order::Accept => self.accept(),
                Order::Close(stream) => drop(stream),
            }
        }
    }

    fn dial(&self, call: Call) {
        let mut name = self.path.clone().into_os_string();
        name.push(format!("_{}", call.key.host_port));
        self.deliveries.put(Delivery::Dialed { call, stream: dial(name.as_ref()) });
    }

    /// Hands over all clients that are there and have a seat.
    fn accept(&self) {
        loop {
            let Some(seat) = self.seats.take() else { return self.deliveries.put(Delivery::Held) };
            match self.listener.accept() {
                Ok(stream) => self.deliveries.put(Delivery::Client { stream, seat }),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // A client that has gone again.
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => {
                    log::debug!("no client is accepted for a while: {error}");
                    return self.deliveries.put(Delivery::Held);
                }
            }
        }
    }
}

impl Card for Broker {
    fn job(&self) -> Job {
        Job::Broker
    }

    fn register(&mut self, events: &mut Events<'_, '_>) -> io::Result<()> {
        let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
        events.add(&self.orders.wake, ORDERS, edges)?;
        events.add(&self.listener, LISTENER, edges)
    }

    /// Who came while there was no driver is there, and no edge tells of it any more.
    fn activate(&mut self, _: u64, _: &Arc<Line>, _: &mut Events<'_, '_>) -> io::Result<()> {
        self.carry_out();
        self.accept();
        Ok(())
    }

    fn start_queue(&mut self, _: Queue, _: &mut Events<'_, '_>) {}

    fn stop_queue(&mut self, _: u16, _: &mut Events<'_, '_>) -> Option<Queue> {
        None
    }

    /// The worker is stopped before, and has ordered all its sockets to be closed.
    fn deactivate(&mut self, _: &mut Events<'_, '_>) {
        self.carry_out();
    }

    fn kicked(&mut self, _: u16, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        Ok(())
    }

    fn ready(&mut self, token: u32, _: EventSet, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        match token {
            LISTENER => self.accept(),
            _ => self.carry_out(),
        }
        Ok(())
    }
}
