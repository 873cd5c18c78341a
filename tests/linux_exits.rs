//! What a driver at work costs: exits to user space for each request of a disk and each frame from the network, with the
//! kernel's own drivers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use firecrest_vmm::{Block, Net, QueueCounts, RegisterAccess};
use support::disk::{Disk, MIB};
use support::guest::{self, Guest};
use support::net::{GUEST, HOST, in_a_namespace, tap};
use support::until;

/// Requests and frames that are counted.
const REQUESTS: u64 = 2000;
const FRAMES: u64 = 300;
/// Frames come one by one, so that each may interrupt.
const FRAMES_APART: Duration = Duration::from_millis(4);

/// What happened meanwhile.
struct Counted {
    exits: u64,
    chains: u64,
    interrupts: u64,
}

/// Counts while `action` runs.
fn counted(guest: &Guest, device: usize, action: impl FnOnce()) -> Counted {
    let now = || {
        let stats = guest.running.stats();
        let QueueCounts { chains, interrupts, .. } = stats.devices[device].queues[0];
        (stats.exits.iter().sum::<u64>(), chains, interrupts)
    };
    let before = now();
    action();
    let after = now();
    Counted { exits: after.0 - before.0, chains: after.1 - before.1, interrupts: after.2 - before.2 }
}

/// Reads of the disk, one at a time; then frames for the guest.
fn work(access: RegisterAccess) -> [Counted; 2] {
    tap(1, 1500);
    let disk = Disk::pattern("exits", 16 * MIB, 1);
    let guest = guest::start("exits", "", |builder| {
        builder.register_access(access).block(Block::file(disk.path())).net(Net::tap("tap0"))
    });
    let taken = |device: usize| guest.running.stats().devices[device].queues[0].chains;
    let reads = guest.at("disk", || {
        let warm = taken(1) + 100;
        until("the first reads", || taken(1) > warm);
        let (wanted, reached) = (taken(1) + REQUESTS, "2,000 reads");
        counted(&guest, 1, || until(reached, || taken(1) >= wanted))
    });
    let frames = guest.at("network", || {
        let socket = UdpSocket::bind((HOST, 0)).unwrap();
        let send = || socket.send_to(&[0; 64], (GUEST, 9)).unwrap();
        // The first one has the two ask for each other's address.
        send();
        thread::sleep(Duration::from_millis(500));
        let wanted = taken(2) + FRAMES;
        counted(&guest, 2, || {
            for _ in 0..FRAMES {
                send();
                thread::sleep(FRAMES_APART);
            }
            // The last of them may still be on their way.
            until("the last frames", || taken(2) >= wanted);
        })
    });
    guest.finish();
    for (what, Counted { exits, chains, interrupts }) in [("reads", &reads), ("frames", &frames)] {
        println!("{access:?}: {chains} {what}, {interrupts} interrupts, {exits} exits to user space");
    }
    assert!(reads.chains >= REQUESTS && frames.chains >= FRAMES, "all of it was done");
    [reads, frames]
}

#[test]
fn a_driver_at_work_causes_no_exit() {
    in_a_namespace("a_driver_at_work_causes_no_exit", || {
        for Counted { exits, .. } in work(RegisterAccess::Mapped) {
            assert_eq!(exits, 0);
        }
    });
}

/// The same with every access exiting, as monitors have it that answer them: two for each interrupt, and with requests
/// one at a time there is an interrupt for each.
#[test]
fn trapped_registers_cost_two_exits_for_each_interrupt() {
    in_a_namespace("trapped_registers_cost_two_exits_for_each_interrupt", || {
        let [reads, frames] = work(RegisterAccess::Trapped);
        assert!(reads.exits >= 2 * REQUESTS * 9 / 10, "{} exits for {} reads", reads.exits, reads.chains);
        let interrupts = frames.interrupts;
        assert!(interrupts >= FRAMES / 2 && frames.exits >= interrupts, "{} for {interrupts}", frames.exits);
    });
}
