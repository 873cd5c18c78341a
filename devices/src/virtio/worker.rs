//! A card's thread: waits for kicks, for the card's own descriptors and for the transport's commands, and
//! passes them on.
//!
//! A command that stops something is answered, and whoever sent it waits for the answer: a driver that has
//! written a reset takes its memory back at once, so that nothing of the device may touch it from then on.
//! A worker never waits for the transport.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::iter;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use event_manager::{EventManager, EventOps, EventSet, MutEventSubscriber, SubscriberId, SubscriberOps};
use log::Level;
use vmm_sys_util::eventfd::EventFd;

use super::device::{Card, Events, Job, RESERVED_TOKENS};
use super::line::Line;
use super::queue::{Broken, Queue, QueueState};
use super::stats::QueueStats;
use crate::eventfd;

/// The token of the commands' eventfd; kicks are [`RESERVED_TOKENS`] and the queue's index.
const COMMANDS: u32 = u32::MAX;

/// What a transport asks of a worker.
pub(super) enum Command {
    Start { features: u64, line: Arc<Line>, queues: Vec<Queue> },
    StartQueue(Queue),
    StopQueue { index: u16, reply: Sender<Option<QueueState>> },
    Stop { reply: Sender<Vec<(u16, QueueState)>> },
    Rescan,
    Quit,
}

/// The transport's end of a worker. Dropping it ends the worker.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) queues: Vec<u16>,
    commands: Sender<Command>,
    wake: Arc<EventFd>,
}

/// A card, and what it waits for, to be run by a thread of its own.
pub struct Worker {
    manager: EventManager<Shell>,
    shell: SubscriberId,
}

/// The loop of a worker could not go on: the host refused what it had granted before.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device's thread cannot wait for events")]
pub struct WorkerError(#[from] event_manager::Error);

/// Makes a worker for `card`, which has these queues.
pub(super) fn pair(
    card: Box<dyn Card>,
    queues: Vec<u16>,
    kicks: BTreeMap<u16, (Arc<EventFd>, Arc<QueueStats>)>,
) -> io::Result<(Remote, Worker)> {
    let (commands, receiver) = mpsc::channel();
    let wake = Arc::new(eventfd()?);
    let shell = Shell {
        card,
        kicks,
        commands: receiver,
        wake: Arc::clone(&wake),
        line: None,
        started: Vec::new(),
        complained: false,
        due: false,
        quit: false,
    };
    let mut manager = EventManager::new().map_err(io::Error::other)?;
    let shell = manager.add_subscriber(shell);
    Ok((Remote { queues, commands, wake }, Worker { manager, shell }))
}

impl Remote {
    /// Sends a command; one that cannot be sent finds a worker that has ended, and with it all its work.
    pub(super) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // It fails only where the counter is at its maximum, and then the worker is awake.
            let _: io::Result<()> = self.wake.write(1);
        }
    }

    /// Sends a command that is answered, and waits for the answer; `None` where the worker has ended.
    pub(super) fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = mpsc::channel();
        self.send(command(reply));
        answer.recv().ok()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.send(Command::Quit);
    }
}

impl Worker {
    /// What it does on the host. What it does in the end is known once it is [prepared](Self::prepare); before, all
    /// that it may come to is said.
    #[must_use]
    pub fn job(&mut self) -> Job {
        self.manager.subscriber_mut(self.shell).map_or(Job::Disk, |shell| shell.card.job())
    }

    /// To be called first, on the thread that will run it.
    pub fn prepare(&mut self) {
        if let Ok(shell) = self.manager.subscriber_mut(self.shell) {
            shell.card.prepare();
        }
    }

    /// How much of its heap the thread is to have at hand; see [`Card::heap`].
    #[must_use]
    pub fn heap(&mut self) -> usize {
        self.manager.subscriber_mut(self.shell).map_or(0, |shell| shell.card.heap())
    }

    /// Works until the transport is dropped.
    ///
    /// # Errors
    /// The host refuses to let the thread wait.
    pub fn run(&mut self) -> Result<(), WorkerError> {
        loop {
            let shell = self.manager.subscriber_mut(self.shell)?;
            if shell.quit {
                return Ok(());
            }
            let patience = shell.line.as_ref().and_then(|_| shell.card.patience());
            if patience.is_some_and(|rest| rest.is_zero()) {
                // By way of the commands' eventfd: only an event brings what a card is called with.
                shell.due = true;
                // It fails only where the counter is at its maximum, and then there is an edge still to be seen.
                let _: io::Result<()> = shell.wake.write(1);
            }
            self.manager.run_with_timeout(timeout(patience))?;
        }
    }
}

/// In milliseconds, as epoll_wait takes it: no timer is needed, and none has to be set.
fn timeout(patience: Option<Duration>) -> i32 {
    const FOREVER: i32 = -1;
    patience.map_or(FOREVER, |rest| i32::try_from(rest.as_micros().div_ceil(1000)).unwrap_or(i32::MAX))
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

struct Shell {
    card: Box<dyn Card>,
    kicks: BTreeMap<u16, (Arc<EventFd>, Arc<QueueStats>)>,
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
    /// There while the card is activated.
    line: Option<Arc<Line>>,
    started: Vec<u16>,
    /// A failure has been told; a guest that fails over and over does not fill the log.
    complained: bool,
    /// The card is to be called.
    due: bool,
    quit: bool,
}

impl MutEventSubscriber for Shell {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let result = self.register(ops);
        if let Err(error) = result.and_then(|()| self.card.register(&mut Events(ops))) {
            log::error!("a device's thread cannot wait for what it has to: {error}");
            self.quit = true;
        }
    }

    fn process(&mut self, event: event_manager::Events, ops: &mut EventOps<'_>) {
        let token = event.data();
        if token == COMMANDS {
            while let Ok(command) = self.commands.try_recv() {
                self.command(command, ops);
            }
            if std::mem::take(&mut self.due) && self.line.is_some() {
                let result = self.card.due(&mut Events(ops));
                self.settle(result, ops);
            }
        } else if token & RESERVED_TOKENS != 0 {
            self.kicked((token & 0xffff).try_into().unwrap_or(u16::MAX), ops);
        } else if self.line.is_some() {
            let result = self.card.ready(token, event.event_set(), &mut Events(ops));
            self.settle(result, ops);
        }
    }
}

impl Shell {
    /// Waits for commands and kicks from now on, and for all of the thread's life: so a card may need no call to
    /// change what it waits for. All are edges, so that none need be read.
    fn register(&self, ops: &mut EventOps<'_>) -> io::Result<()> {
        let kicks = self.kicks.iter().map(|(index, (kick, _))| (kick, RESERVED_TOKENS | u32::from(*index)));
        for (eventfd, token) in iter::once((&self.wake, COMMANDS)).chain(kicks) {
            let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
            ops.add(event_manager::Events::with_data(&**eventfd, token, edges)).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn command(&mut self, command: Command, ops: &mut EventOps<'_>) {
        match command {
            Command::Start { features, line, queues } => self.start(features, line, queues, ops),
            Command::StartQueue(queue) => self.start_queue(queue, ops),
            // Whoever asked waits for these answers, or has gone.
            Command::StopQueue { index, reply } => drop(reply.send(self.stop_queue(index, ops))),
            Command::Stop { reply } => drop(reply.send(self.stop(ops))),
            Command::Rescan => self.card.rescan(),
            Command::Quit => {
                self.stop(ops);
                self.quit = true;
            }
        }
    }

    fn start(&mut self, features: u64, line: Arc<Line>, queues: Vec<Queue>, ops: &mut EventOps<'_>) {
        let result = self.card.activate(features, &line, &mut Events(ops));
        self.line = Some(line);
        if let Err(error) = result {
            self.fail(&format_args!("its back end refuses to start: {error}"), ops);
        }
        for queue in queues {
            self.start_queue(queue, ops);
        }
    }

    fn start_queue(&mut self, queue: Queue, ops: &mut EventOps<'_>) {
        let index = queue.index();
        if self.line.is_none() {
            return;
        }
        self.started.push(index);
        self.card.start_queue(queue, &mut Events(ops));
        // What the driver made available before may have no kick of its own.
        self.kicked(index, ops);
    }

    fn kicked(&mut self, index: u16, ops: &mut EventOps<'_>) {
        if !self.started.contains(&index) {
            return;
        }
        if let Some((_, stats)) = self.kicks.get(&index) {
            stats.kicks.add(1);
        }
        let result = self.card.kicked(index, &mut Events(ops));
        self.settle(result, ops);
    }

    fn settle(&mut self, result: Result<(), Broken>, ops: &mut EventOps<'_>) {
        if let Err(broken) = result {
            self.fail(&broken, ops);
        }
    }

    /// Stops at once, and tells the driver that it has to reset the device. Nothing is waited for but commands.
    fn fail(&mut self, why: &dyn Display, ops: &mut EventOps<'_>) {
        let again = std::mem::replace(&mut self.complained, true);
        log::log!(if again { Level::Debug } else { Level::Warn }, "a device needs a reset: {why}");
        let line = self.line.clone();
        self.stop(ops);
        if let Some(line) = line {
            line.needs_reset();
        }
    }

    fn stop_queue(&mut self, index: u16, ops: &mut EventOps<'_>) -> Option<QueueState> {
        self.started.retain(|started| *started != index);
        let mut queue = self.card.stop_queue(index, &mut Events(ops))?;
        // What was completed last; a ring that is out of reach is the driver's loss.
        let _: Result<(), Broken> = queue.publish();
        Some(queue.state())
    }

    fn stop(&mut self, ops: &mut EventOps<'_>) -> Vec<(u16, QueueState)> {
        let started = std::mem::take(&mut self.started);
        let states =
            started.into_iter().filter_map(|index| Some((index, self.stop_queue(index, ops)?))).collect();
        if self.line.take().is_some() {
            self.card.deactivate(&mut Events(ops));
        }
        states
    }
}
