//! What is measured, and in which unit it is told.

use super::report::Report;

/// The device a workload needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Block,
    Net,
    Vsock,
}

/// What the host can say about a workload's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The guest has looked at what came.
    ByGuest,
    /// The disk holds what was written.
    Disk,
    /// So many frames came out of the TAP.
    Frames,
    /// So many bytes came out of the socket.
    Bytes,
}

/// How a result is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Thousands of operations per second.
    Rate,
    Gigabits,
    /// Of one operation.
    Microseconds,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "thousands/s",
            Self::Gigabits => "Gbit/s",
            Self::Microseconds => "us",
        }
    }

    pub fn of(self, report: &Report) -> f64 {
        match self {
            Self::Rate => report.operations / report.nanoseconds * 1e6,
            Self::Gigabits => report.bytes * 8.0 / report.nanoseconds,
            Self::Microseconds => report.nanoseconds / report.operations / 1e3,
        }
    }

    /// How much better than another value, whether large or small is good.
    pub fn ratio(self, ours: f64, theirs: f64) -> f64 {
        if self == Self::Microseconds { theirs / ours } else { ours / theirs }
    }
}

pub struct Workload {
    pub name: &'static str,
    pub device: Device,
    pub unit: Unit,
    pub check: Check,
    pub cmdline: &'static str,
}

const fn block(name: &'static str, unit: Unit, check: Check, cmdline: &'static str) -> Workload {
    Workload { name, device: Device::Block, unit, check, cmdline }
}

const fn net(name: &'static str, unit: Unit, check: Check, cmdline: &'static str) -> Workload {
    Workload { name, device: Device::Net, unit, check, cmdline }
}

const fn vsock(name: &'static str, unit: Unit, check: Check, cmdline: &'static str) -> Workload {
    Workload { name, device: Device::Vsock, unit, check, cmdline }
}

/// In the order they are measured. `with interrupts`: the device is asked for an interrupt per completion, and the
/// guest reads InterruptStatus and writes InterruptACK for each, as a handler would; elsewhere it asks for none.
pub const WORKLOADS: &[Workload] = &[
    block("block: random read 4 KiB, 1 at a time", Unit::Rate, Check::ByGuest, "bench=blk-read depth=1"),
    block("block: random read 4 KiB, 32 at a time", Unit::Rate, Check::ByGuest, "bench=blk-read depth=32"),
    block("block: random write 4 KiB, 1 at a time", Unit::Rate, Check::Disk, "bench=blk-write depth=1"),
    block("block: random write 4 KiB, 32 at a time", Unit::Rate, Check::Disk, "bench=blk-write depth=32"),
    block(
        "block: sequential read 1 MiB, 4 at a time",
        Unit::Gigabits,
        Check::ByGuest,
        "bench=blk-read size=1048576 depth=4 sequential=1",
    ),
    block(
        "block: sequential write 1 MiB, 4 at a time",
        Unit::Gigabits,
        Check::Disk,
        "bench=blk-write size=1048576 depth=4 sequential=1",
    ),
    block(
        "block: random read 4 KiB, 1 at a time, with interrupts",
        Unit::Rate,
        Check::ByGuest,
        "bench=blk-read depth=1 ack=1",
    ),
    net("net: send 60-byte frames", Unit::Rate, Check::Frames, "bench=net-send size=60"),
    net("net: send 1514-byte frames", Unit::Gigabits, Check::Frames, "bench=net-send size=1514"),
    net(
        "net: send 64 KiB segments (TSO)",
        Unit::Gigabits,
        Check::Frames,
        "bench=net-send size=65214 depth=64",
    ),
    net(
        "net: ICMP echo of 98 bytes, 1 at a time",
        Unit::Microseconds,
        Check::ByGuest,
        "bench=net-echo depth=1",
    ),
    net(
        "net: ICMP echo of 1514 bytes, 64 at a time",
        Unit::Rate,
        Check::ByGuest,
        "bench=net-echo size=1514 depth=64",
    ),
    net(
        "net: ICMP echo of 98 bytes, 1 at a time, with interrupts",
        Unit::Microseconds,
        Check::ByGuest,
        "bench=net-echo depth=1 ack=1",
    ),
    vsock("vsock: stream to the host", Unit::Gigabits, Check::Bytes, "bench=vsock-send"),
    vsock("vsock: stream from the host", Unit::Gigabits, Check::ByGuest, "bench=vsock-receive"),
    vsock("vsock: echo of 1 byte", Unit::Microseconds, Check::ByGuest, "bench=vsock-echo size=1"),
    vsock(
        "vsock: echo of 1 byte, with interrupts",
        Unit::Microseconds,
        Check::ByGuest,
        "bench=vsock-echo size=1 ack=1",
    ),
];
