//! Linux guests and their network: the kernel's own driver, a TAP interface in a network namespace, and data that both
//! ends check.
//!
//! What a guest does is in `tests/guest/net*.sh`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use firecrest_pattern::exchange::When;
use firecrest_vmm::Net;
use support::disk::MIB;
use support::guest;
use support::net::{GUEST, HOST, Iperf, in_a_namespace, ip, tap};
use support::streams::{as_unix, call_all, serve_all};

#[test]
fn a_wire_with_two_queue_pairs() {
    in_a_namespace("a_wire_with_two_queue_pairs", || {
        tap(2, 1400);
        let net = Net::tap("tap0").mac([2, 0, 0, 0, 0, 1]).mtu(1400).queue_pairs(2);
        let guest = wire(net, 2, 8, MIB / 2);
        assert_eq!(guest.said("mac"), "02:00:00:00:00:01");
        assert_eq!(guest.number("mtu"), 1400);
        assert_eq!(guest.number("rx_queues"), 2);
        assert_eq!(guest.number("pairs"), 2);
    });
}

#[test]
fn a_wire_described_by_its_name_alone() {
    in_a_namespace("a_wire_described_by_its_name_alone", || {
        tap(1, 1500);
        let guest = wire(Net::tap("tap0"), 1, 2, MIB / 2);
        assert_eq!(guest.number("mtu"), 1500);
        assert_eq!(guest.number("rx_queues"), 1);
    });
}

/// Ping, `streams` streams at once from each side with so many bytes in both directions, iperf3 in both directions.
fn wire(net: Net, pairs: u32, streams: usize, bytes: u64) -> guest::Guest {
    let listener = TcpListener::bind((HOST, 7000)).unwrap();
    let words = format!("fc.pairs={pairs} fc.streams={streams} fc.bytes={bytes}");
    let guest = guest::start("net", &words, |builder| builder.net(net));
    let taken = serve_all(listener, streams);
    guest.serving();
    let called = call_all(to_guest, streams, bytes, When::AtOnce);
    let _iperf = guest.at("iperf", Iperf::start);
    guest.finish();
    taken.assert(streams);
    called.assert(streams);
    assert_eq!(guest.number("ping"), 5);
    for way in ["iperf_sent", "iperf_received"] {
        // Much less than the slowest machine moves in three seconds.
        assert!(guest.number(way) > 64 << 10, "{way}: {} bytes", guest.number(way));
    }
    println!("iperf3, 3 s: {} bytes there, {} back", guest.said("iperf_sent"), guest.said("iperf_received"));
    guest
}

fn to_guest() -> UnixStream {
    as_unix(TcpStream::connect((GUEST, 7001)).unwrap())
}

/// The host's end goes down in the middle of a transfer, and up again, twice; then the guest's driver is taken away
/// three times.
#[test]
fn a_wire_that_is_cut_and_mended() {
    in_a_namespace("a_wire_that_is_cut_and_mended", || {
        tap(1, 1500);
        // More than fits into sockets: the transfer cannot be over before somebody reads.
        let bytes = 8 * MIB;
        let listener = TcpListener::bind((HOST, 7000)).unwrap();
        let guest = guest::start("net_reset", &format!("fc.bytes={bytes}"), |builder| {
            builder.net(Net::tap("tap0").mac([2, 0, 0, 0, 0, 2]))
        });
        let moment = || thread::sleep(Duration::from_millis(500));
        let taken = guest.at("moving", || {
            // The guest has connected by then, and waits for a reader.
            moment();
            ip("link set tap0 down");
            // One stream for the transfer, and four after the driver came back.
            let taken = serve_all(listener, 5);
            for state in ["up", "down", "up"] {
                moment();
                ip(&format!("link set tap0 {state}"));
            }
            taken
        });
        guest.serving();
        let called = call_all(to_guest, 4, MIB / 4, When::AtOnce);
        guest.finish();
        taken.assert(5);
        called.assert(4);
        assert_eq!(guest.said("survived"), "ok");
        assert_eq!(guest.said("rebound"), "ok");
    });
}
