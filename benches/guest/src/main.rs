//! The guest of the I/O benchmark: drives virtio-mmio devices by polling, from ring 3, and tells how fast that was.
//!
//! Ring 3, because KVM without hardware virtualisation (PVM) runs only that natively: everything here is plain
//! user-mode code after the first instructions (`start.rs`). It takes no interrupts: it polls, and can pay for an
//! interrupt's register accesses as a handler would (`ack=1`).
//!
//! What to do stands on the command line (`bench=blk-read depth=32 size=4096 ms=500`), what came of it goes to the
//! serial port as lines `io: NAME VALUE`. Between `io: begin` and `io: end` nothing but the measured work happens.
//! The run ends by the keyboard controller's reset. Every monitor runs the same file.
#![no_std]
#![no_main]

mod block;
mod clock;
mod console;
mod mmio;
mod net;
mod params;
mod pool;
mod queue;
mod start;
mod vsock;

use core::panic::PanicInfo;

use console::{end_run, say};
use params::Params;

/// What one stretch of work came to.
#[derive(Clone, Copy, Default)]
pub struct Work {
    pub operations: u64,
    pub bytes: u64,
}

/// Something that can be done for a while.
pub trait Workload {
    /// Works until the clock says `until`, and leaves nothing that the device still has to do.
    fn run(&mut self, until: u64) -> Work;

    /// Kicks (writes to QueueNotify) so far.
    fn kicks(&self) -> u64;
}

/// What the handler of an interrupt would have cost: set by the command line, done by `Device::acknowledge`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Interrupts {
    /// The device is asked not to send any.
    Off,
    /// The device is asked to send them, and the guest reads and acknowledges each as a handler would.
    Acknowledged,
}

/// Where `start.rs` arrives, in ring 3.
#[unsafe(no_mangle)]
extern "C" fn user_main(boot_params: *const u8) -> ! {
    let params = Params::of(boot_params);
    match params.word("bench") {
        Some("blk-read") => measure(&mut block::Block::new(&params, block::Direction::Read), &params),
        Some("blk-write") => measure(&mut block::Block::new(&params, block::Direction::Write), &params),
        Some("net-send") => measure(&mut net::Send::new(&params), &params),
        Some("net-echo") => measure(&mut net::Echo::new(&params), &params),
        Some("vsock-send") => measure(&mut vsock::Send::new(&params), &params),
        Some("vsock-receive") => measure(&mut vsock::Receive::new(&params), &params),
        Some("vsock-echo") => measure(&mut vsock::Echo::new(&params), &params),
        _ => fail("no such bench"),
    }
    end_run()
}

fn measure(workload: &mut impl Workload, params: &Params) {
    const MILLISECOND: u64 = 1_000_000;
    /// Long enough for the harness to look at the monitor's CPU time when it has read a line.
    const PAUSE: u64 = 50 * MILLISECOND;

    let warm_up = workload.run(clock::now() + params.number("warm", 100) * MILLISECOND);
    say(format_args!("begin"));
    clock::wait(PAUSE);
    let (kicks, from) = (workload.kicks(), clock::now());
    let work = workload.run(from + params.number("ms", 500) * MILLISECOND);
    let (kicks, took) = (workload.kicks() - kicks, clock::now() - from);
    say(format_args!("end"));
    say(format_args!("operations {}", work.operations));
    say(format_args!("bytes {}", work.bytes));
    say(format_args!("ns {took}"));
    say(format_args!("kicks {kicks}"));
    say(format_args!("all-operations {}", warm_up.operations + work.operations));
    say(format_args!("all-bytes {}", warm_up.bytes + work.bytes));
    clock::wait(PAUSE);
}

/// Ends the run with a reason.
pub fn fail(why: &str) -> ! {
    say(format_args!("error {why}"));
    end_run()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    say(format_args!("error {}", info.message()));
    end_run()
}
