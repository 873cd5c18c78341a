//! What the console's thread waits for: the port, and the input while the guest takes it.
//!
//! There is a set of descriptors for either case, made before the thread is jailed: so it needs no call to change
//! what it waits for.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const PORT: u64 = 0;
const INPUT: u64 = 1;

/// What to wait for.
pub(super) struct Waits {
    port: Epoll,
    /// Where there is input that can be waited for.
    both: Option<Epoll>,
    /// The input is a file, of which there is always more, or its end.
    never_waits: bool,
}

/// What there is to do.
#[derive(Clone, Copy, Default)]
pub(super) struct Ready {
    pub(super) port: bool,
    pub(super) input: bool,
    /// Time is up.
    pub(super) nothing: bool,
}

impl Waits {
    pub(super) fn new(port: RawFd, input: Option<RawFd>) -> io::Result<Self> {
        let alone = Epoll::new()?;
        add(&alone, port, PORT)?;
        let mut waits = Self { port: alone, both: None, never_waits: false };
        if let Some(input) = input {
            let both = Epoll::new()?;
            add(&both, port, PORT)?;
            match add(&both, input, INPUT) {
                Ok(()) => waits.both = Some(both),
                // What epoll_ctl(2) says of files and directories.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => waits.never_waits = true,
                Err(error) => return Err(error),
            }
        }
        Ok(waits)
    }

    /// Waits for the port, for input where that is wanted, and no longer than that.
    pub(super) fn wait(&self, input: bool, at_most: Option<Duration>) -> Ready {
        let at_once = input && self.never_waits;
        let at_most = at_most.map_or(-1, |time| i32::try_from(time.as_millis()).unwrap_or(i32::MAX));
        let set = self.both.as_ref().filter(|_| input).unwrap_or(&self.port);
        let mut events = [EpollEvent::default(); 2];
        // Signals are blocked: an error is none that could be helped by anything but another look.
        let count = set.wait(if at_once { 0 } else { at_most }, &mut events).unwrap_or(0);
        let mut ready = Ready { port: false, input: at_once, nothing: count == 0 && !at_once };
        for event in events.iter().take(count) {
            match event.data() {
                PORT => ready.port = true,
                _ => ready.input = true,
            }
        }
        ready
    }
}

fn add(epoll: &Epoll, fd: RawFd, token: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token))
}
