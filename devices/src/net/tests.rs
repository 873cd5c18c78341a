//! What a card does, with a pair of sockets for a TAP; and what a caller may say.

#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "tests")]

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::fake::{fake, parts};
use super::features::{self, offloads};
use super::spec::limiters;
use super::{Directions, HEADER_LEN, MAX_FRAME, Net, NetError};
use crate::rate_limit::{Bucket, RateLimit};
use crate::testing::{BUFFERS, Driver, Seg};
use crate::virtio::{Device, QueueCounts};

pub(super) const RX: u16 = 0;
pub(super) const TX: u16 = 1;

/// A card whose TAP is a socket, and the other end of it.
pub(super) fn pair() -> (UnixDatagram, Device) {
    let (host, ours) = UnixDatagram::pair().unwrap();
    host.set_nonblocking(true).unwrap();
    (host, fake(vec![ours]).unwrap())
}

/// A header that says nothing, and `len` bytes that say which frame it is.
pub(super) fn frame(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    bytes.extend((0..len).map(|at| (number * 31 + at * 7 + at / 251) as u8));
    bytes
}

pub(super) fn counts(driver: &Driver, queue: u16) -> QueueCounts {
    driver.bench.transport.counts()[usize::from(queue)]
}

/// Gives the card `count` buffers of `len` bytes, `apart` bytes apart, the first in slot `from`.
pub(super) fn give(driver: &mut Driver, from: usize, count: usize, len: u32, apart: u64) {
    for slot in from..from + count {
        driver.offer(RX, &[Seg::writable(BUFFERS + apart * slot as u64, len)]);
    }
    driver.kick(RX);
}

/// The next received frame with its header, out of buffers that lie at `apart` times the slot.
pub(super) fn receive(driver: &mut Driver, slot: &mut usize, apart: u64) -> Vec<u8> {
    let (_, len) = driver.wait_used(RX);
    let mut bytes = driver.get(BUFFERS + apart * *slot as u64, len as usize);
    *slot += 1;
    let buffers = u16::from_le_bytes([bytes[10], bytes[11]]);
    for _ in 1..buffers {
        // Published together.
        let (_, len) = driver.used(RX).expect("all of a frame at once");
        bytes.extend(driver.get(BUFFERS + apart * *slot as u64, len as usize));
        *slot += 1;
    }
    bytes
}

/// The frame as it arrives, over so many buffers.
fn arrived(mut frame: Vec<u8>, buffers: u8) -> Vec<u8> {
    frame[10] = buffers;
    frame
}

fn read(host: &UnixDatagram) -> Option<Vec<u8>> {
    let mut bytes = vec![0; MAX_FRAME + 1];
    match host.recv(&mut bytes) {
        Ok(len) => Some(bytes[..len].to_vec()),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            None
        }
    }
}

#[test]
fn frames_arrive_in_the_drivers_buffers() {
    for wanted in [u64::MAX, 0] {
        let (host, device) = pair();
        let mut driver = Driver::new(device);
        driver.start(wanted);
        give(&mut driver, 0, 8, 1600, 0x1000);
        let mut slot = 0;
        for number in 0..8 {
            host.send(&frame(number, 60 + 100 * number)).unwrap();
            let received = receive(&mut driver, &mut slot, 0x1000);
            assert_eq!(received, arrived(frame(number, 60 + 100 * number), 1));
        }
        assert_eq!(counts(&driver, RX).errors, 0);
        assert_eq!(counts(&driver, RX).bytes, (0..8).map(|number| 60 + 100 * number).sum::<u64>());
        driver.bench.end();
    }
}

#[test]
fn frames_leave_from_any_layout() {
    let (host, device) = pair();
    let mut driver = Driver::started(device);
    let sent = frame(1, 500);
    driver.put(BUFFERS, &sent);
    // The framing is the driver's: a header in pieces, and empty buffers in between.
    let whole = [Seg::readable(BUFFERS, 512)];
    let pieces = [(0, 3), (3, 0), (3, 8), (11, 101), (112, 0), (112, 400)];
    let pieces = pieces.map(|(at, len)| Seg::readable(BUFFERS + at, len));
    for chain in [&whole[..], &pieces] {
        assert_eq!(driver.request(TX, chain), 0, "nothing is written");
        assert_eq!(read(&host), Some(sent.clone()));
    }
    assert_eq!(counts(&driver, TX).bytes, 1000);
    driver.bench.end();
}

#[test]
fn what_is_no_frame_is_dropped() {
    let (host, device) = pair();
    let mut driver = Driver::started(device);
    let long = MAX_FRAME as u32 + 1;
    for chain in [
        &[Seg::readable(BUFFERS, 11)][..],
        &[Seg::readable(BUFFERS, 0)],
        &[Seg::writable(BUFFERS, 100)],
        &[Seg::readable(BUFFERS, long)],
    ] {
        assert_eq!(driver.request(TX, chain), 0);
    }
    assert_eq!(counts(&driver, TX).errors, 4);
    assert_eq!(read(&host), None);
    driver.bench.end();
}

#[test]
fn a_long_frame_takes_several_buffers_and_waits_for_them() {
    let (host, device) = pair();
    let mut driver = Driver::started(device);
    let sent = frame(3, 9000);
    give(&mut driver, 0, 2, 1600, 0x1000);
    host.send(&sent).unwrap();
    driver.until("the frame to be read", |driver| counts(driver, RX).chains == 2);
    assert_eq!(driver.used(RX), None, "it does not fit");
    give(&mut driver, 2, 3, 1600, 0x1000);
    driver.until("the chains to be taken", |driver| counts(driver, RX).chains == 5);
    assert_eq!(driver.used(RX), None, "it does not fit");
    give(&mut driver, 5, 2, 1600, 0x1000);
    let mut slot = 0;
    assert_eq!(receive(&mut driver, &mut slot, 0x1000), arrived(sent, 6));
    assert_eq!(slot, 6);
    host.send(&frame(4, 100)).unwrap();
    assert_eq!(receive(&mut driver, &mut slot, 0x1000), arrived(frame(4, 100), 1), "the rest was kept");
    assert_eq!(counts(&driver, RX).errors, 0);
    driver.bench.end();
}

#[test]
fn a_frame_that_no_buffers_can_hold_is_dropped() {
    let (host, device) = pair();
    let mut driver = Driver::started(device);
    // As many buffers as there can be, of 16 bytes each.
    give(&mut driver, 0, 256, 16, 0x10);
    host.send(&frame(0, 9000)).unwrap();
    driver.until("the frame to be dropped", |driver| counts(driver, RX).errors == 1);
    host.send(&frame(1, 100)).unwrap();
    let mut slot = 0;
    assert_eq!(receive(&mut driver, &mut slot, 0x10), arrived(frame(1, 100), 7));
    driver.bench.end();
}

#[test]
fn without_mergeable_buffers_a_frame_has_one_chain_or_none() {
    let (host, device) = pair();
    let mut driver = Driver::new(device);
    driver.start(0);
    give(&mut driver, 0, 4, 1530, 0x1000);
    // One byte too long, and exactly as long as the buffer.
    host.send(&frame(0, 1519)).unwrap();
    host.send(&frame(1, 1518)).unwrap();
    let mut slot = 0;
    assert_eq!(receive(&mut driver, &mut slot, 0x1000), arrived(frame(1, 1518), 1));
    assert_eq!(counts(&driver, RX).errors, 1);
    driver.bench.end();
}

#[test]
fn a_driver_that_gives_no_buffers_costs_nothing() {
    let (host, device) = pair();
    let mut driver = Driver::started(device);
    for number in 0..4 {
        host.send(&frame(number, 100)).unwrap();
    }
    // The other direction, to know that the thread has had its turns.
    driver.put(BUFFERS, &frame(0, 100));
    for _ in 0..20 {
        driver.request(TX, &[Seg::readable(BUFFERS, 112)]);
        assert!(read(&host).is_some());
    }
    assert_eq!(counts(&driver, RX).kicks, 1, "woken by the start alone");
    give(&mut driver, 0, 4, 1600, 0x1000);
    let mut slot = 0;
    for number in 0..4 {
        assert_eq!(receive(&mut driver, &mut slot, 0x1000), arrived(frame(number, 100), 1));
    }
    driver.bench.end();
}

#[test]
fn a_tap_that_takes_no_frames_costs_nothing_and_loses_none() {
    let (host, device) = pair();
    let mut driver = Driver::started(device);
    for number in 0..200 {
        driver.put(BUFFERS + 0x1000 * number as u64, &frame(number, 1000));
        driver.offer(TX, &[Seg::readable(BUFFERS + 0x1000 * number as u64, 1012)]);
    }
    driver.kick(TX);
    let mut taken = 0;
    driver.until("the socket to be full", |driver| {
        let before = taken;
        taken = counts(driver, TX).chains;
        taken > 0 && taken == before
    });
    assert!(taken < 200, "a socket holds less");
    for _ in 0..10 {
        driver.kick(TX);
    }
    // The kicks, and a few times that the socket had room.
    let before = counts(&driver, TX).kicks;
    assert!(before <= 1 + 10 + 200, "{before}");
    for number in 0..200 {
        let mut received = None;
        driver.until("a frame", |_| {
            received = read(&host);
            received.is_some()
        });
        assert_eq!(received, Some(frame(number, 1000)));
        driver.wait_used(TX);
    }
    assert_eq!(counts(&driver, TX).errors, 0);
    assert_eq!(counts(&driver, TX).chains, 200, "each is taken once");
    driver.bench.end();
}

#[test]
fn frames_that_were_not_sent_are_sent_after_a_pause() {
    let (host, device) = pair();
    let mut driver = Driver::started(device);
    for number in 0..100 {
        driver.put(BUFFERS + 0x1000 * number as u64, &frame(number, 1000));
        driver.offer(TX, &[Seg::readable(BUFFERS + 0x1000 * number as u64, 1012)]);
    }
    give(&mut driver, 200, 20, 1600, 0x1000);
    driver.kick(TX);
    let mut slot = 200;
    for number in 0..100 {
        if number % 10 == 0 {
            driver.bench.transport.save();
            host.send(&frame(number, 300)).unwrap();
            assert_eq!(receive(&mut driver, &mut slot, 0x1000), arrived(frame(number, 300), 1));
        }
        let mut received = None;
        driver.until("a frame", |_| {
            received = read(&host);
            received.is_some()
        });
        assert_eq!(received, Some(frame(number, 1000)));
    }
    driver.bench.end();
}

#[test]
fn a_flood_from_the_host_leaves_the_driver_its_turn() {
    let (host, device) = pair();
    let mut driver = Driver::started(device);
    host.set_nonblocking(false).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..2000 {
                host.send(&frame(number, 100)).unwrap();
            }
        });
        give(&mut driver, 0, 128, 1600, 0x800);
        driver.put(BUFFERS + 0x80_0000, &frame(7, 5));
        for number in 0..2000 {
            // A frame each way, in buffers that are given again and again.
            let slot = number % 128;
            assert_eq!(receive(&mut driver, &mut slot.clone(), 0x800), arrived(frame(number, 100), 1));
            give(&mut driver, slot, 1, 1600, 0x800);
            if number % 100 == 0 {
                driver.request(TX, &[Seg::readable(BUFFERS + 0x80_0000, 17)]);
            }
        }
    });
    assert_eq!(counts(&driver, RX).errors, 0);
    driver.bench.end();
}

/// The limit is no test of the clock: what is counted is how much passes before it is waited for, and that
/// everything passes in the end.
#[test]
fn a_rate_limit_holds_each_direction_back_and_loses_nothing() {
    let few = Bucket { size: 10, refill: Duration::from_millis(100), burst: 0 };
    let bytes = Bucket { size: 1000, refill: Duration::from_millis(100), burst: 0 };
    for limit in
        [RateLimit { operations: Some(few), bytes: None }, RateLimit { operations: None, bytes: Some(bytes) }]
    {
        let (host, ours) = UnixDatagram::pair().unwrap();
        host.set_nonblocking(true).unwrap();
        let limiters = limiters(Directions { receive: limit, transmit: limit }).unwrap();
        let mut driver = Driver::started(parts(vec![ours], limiters).unwrap().assemble().unwrap());
        give(&mut driver, 0, 40, 1600, 0x1000);
        for number in 0..40 {
            driver.put(BUFFERS + 0x1000 * (40 + number) as u64, &frame(number, 100));
            driver.offer(TX, &[Seg::readable(BUFFERS + 0x1000 * (40 + number) as u64, 112)]);
        }
        driver.kick(TX);
        let (mut sent, mut slot, mut back) = (0, 0, 0);
        driver.until("all frames", |driver| {
            while sent < 40 && host.send(&frame(sent, 100)).is_ok() {
                sent += 1;
            }
            if let Some((_, len)) = driver.used(RX) {
                assert_eq!(
                    driver.get(BUFFERS + 0x1000 * slot as u64, len as usize),
                    arrived(frame(slot, 100), 1)
                );
                slot += 1;
            }
            if let Some(received) = read(&host) {
                assert_eq!(received, frame(back, 100));
                back += 1;
            }
            (slot, back) == (40, 40)
        });
        for queue in [RX, TX] {
            let counts = counts(&driver, queue);
            assert_eq!(counts.errors, 0);
            assert!((1..=40).contains(&counts.throttled), "{counts:?}");
            assert!(counts.kicks <= 100, "{counts:?}");
        }
        driver.start(u64::MAX);
        driver.bench.end();
    }
    let nothing = RateLimit { bytes: Some(Bucket::per_second(0)), operations: None };
    let refused = Net::tap("tap0").rx_rate_limit(nothing).build().unwrap_err();
    assert_eq!(refused.to_string(), "the rate limit of received frames cannot be");
    assert!(matches!(
        Net::tap("tap0").tx_rate_limit(nothing).build(),
        Err(NetError::RateLimit { direction: "sent", .. })
    ));
}

#[test]
fn offloads_are_told_with_what_they_depend_on() {
    use features::{CSUM, GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, GUEST_UFO, GUEST_USO4, GUEST_USO6};
    use libc::{TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, TUN_F_UFO, TUN_F_USO4, TUN_F_USO6};
    let cases = [
        (0, 0),
        (CSUM, 0),
        (GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_UFO | GUEST_USO4 | GUEST_USO6, 0),
        (GUEST_CSUM, TUN_F_CSUM),
        (GUEST_CSUM | GUEST_ECN, TUN_F_CSUM),
        (GUEST_CSUM | GUEST_USO4, TUN_F_CSUM),
        (GUEST_CSUM | GUEST_TSO6 | GUEST_ECN, TUN_F_CSUM | TUN_F_TSO6 | TUN_F_TSO_ECN),
        (GUEST_CSUM | GUEST_UFO | GUEST_TSO4, TUN_F_CSUM | TUN_F_UFO | TUN_F_TSO4),
        (GUEST_CSUM | GUEST_USO4 | GUEST_USO6, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6),
    ];
    for (accepted, told) in cases {
        assert_eq!(offloads(accepted), told, "{accepted:#x}");
    }
}

#[test]
fn what_cannot_be_is_refused_by_its_name() {
    let refused = |net: Net| net.build().unwrap_err().to_string();
    for name in ["", "sixteen-bytes-xx", "a/b", "a b", "tap%d", "..", "a:1", "a\0"] {
        assert!(matches!(Net::tap(name).build(), Err(NetError::Name { name: told }) if told == name));
    }
    assert_eq!(
        refused(Net::tap("tap0").mac([1, 2, 3, 4, 5, 6])),
        "01:02:03:04:05:06 is no card's address: it is a group's, or zero"
    );
    assert!(matches!(Net::tap("tap0").mac([0; 6]).build(), Err(NetError::Mac { .. })));
    assert_eq!(refused(Net::tap("tap0").mtu(67)), "an MTU of 67 is not in the range 68 to 65535");
    for pairs in [0, 17] {
        let told = refused(Net::tap("tap0").queue_pairs(pairs));
        assert_eq!(told, format!("{pairs} pairs of queues are not in the range 1 to 16"));
    }
    assert!(matches!(Net::fds(Vec::new()).build(), Err(NetError::QueuePairs { pairs: 0 })));
    let (socket, _) = UnixDatagram::pair().unwrap();
    assert!(matches!(
        Net::fds(vec![socket.try_clone().unwrap().into()]).queue_pairs(2).build(),
        Err(NetError::Descriptors { given: 1, pairs: 2 })
    ));
    assert_eq!(refused(Net::fds(vec![socket.into()])), "TAP descriptor 0 is not attached to a TAP interface");
}
