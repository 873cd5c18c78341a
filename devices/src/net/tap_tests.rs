//! A card on a real TAP interface, in a network namespace.

#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "tests")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::features::{self, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, MQ, MRG_RXBUF};
use super::tap::{Mode, Tap};
use super::tests::{RX, TX, counts, give, receive};
use super::{HEADER_LEN, Net, NetError};
use crate::testing::namespace::{Interface, VNET_HEADER_LEN, in_namespace};
use crate::testing::{BUFFERS, Driver, Seg};

const PLAIN: [u8; VNET_HEADER_LEN] = [0; VNET_HEADER_LEN];
const IP_HEADERS: usize = 14 + 20 + 20;
const CONTROL: u16 = 4;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`, `VIRTIO_NET_HDR_GSO_TCPV4`.
const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;

/// An Ethernet frame of a kind that the host does not look at.
fn frame(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xff; 6];
    bytes.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    bytes.extend((0..len - 14).map(|at| (number * 31 + at * 7 + at / 251) as u8));
    bytes
}

/// A TCP segment of `len` bytes in all, longer than a link takes, and the header that says how to cut it.
fn long_segment(len: usize, port: u16) -> ([u8; VNET_HEADER_LEN], Vec<u8>) {
    let mut bytes = frame(9, len);
    bytes[12..14].copy_from_slice(&[8, 0]);
    let ip = &mut bytes[14..34];
    ip.copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    ip[2..4].copy_from_slice(&u16::try_from(len - 14).unwrap().to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let tcp = &mut bytes[34..54];
    tcp.copy_from_slice(&[0, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
    tcp[..2].copy_from_slice(&port.to_be_bytes());
    let mut header = [NEEDS_CSUM, GSO_TCPV4, 54, 0, 0, 0, 34, 0, 16, 0];
    header[4..6].copy_from_slice(&1448_u16.to_le_bytes());
    (header, bytes)
}

/// Sends a frame as the driver, with the header the driver's way.
fn transmit(driver: &mut Driver, header: [u8; VNET_HEADER_LEN], frame: &[u8]) {
    let at = BUFFERS + 0x80_0000;
    driver.put(at, &[&header[..], &[0, 0], frame].concat());
    // In pieces, as pages would be.
    let len = (HEADER_LEN + frame.len()) as u32;
    let chain: Vec<_> = (0..len)
        .step_by(4096)
        .map(|from| Seg::readable(at + u64::from(from), (len - from).min(4096)))
        .collect();
    driver.request(TX, &chain);
}

/// Starts the driver, and waits until the kernel knows what it takes: DRIVER_OK does not.
fn start(driver: &mut Driver, wanted: u64, host: &Interface) {
    driver.start(wanted);
    transmit(driver, PLAIN, &frame(0, 100));
    assert_eq!(host.receive().1, frame(0, 100));
}

#[test]
fn frames_go_both_ways() {
    in_namespace("frames_go_both_ways", || {
        for wanted in [u64::MAX, 0, MRG_RXBUF, GUEST_CSUM] {
            let mut driver =
                Driver::new(Net::tap("fctap").mac([2, 0, 0, 0, 0, 2]).mtu(1400).build().unwrap());
            let host = Interface::up("fctap");
            assert_eq!(driver.config(0, 12), [2, 0, 0, 0, 0, 2, 1, 0, 1, 0, 0x78, 5]);
            driver.start(wanted);
            give(&mut driver, 0, 64, 1600, 0x1000);
            let mut slot = 0;
            for number in 0..64 {
                let sent = frame(number, 60 + 22 * number);
                host.send(PLAIN, &sent).unwrap();
                let received = receive(&mut driver, &mut slot, 0x1000);
                assert_eq!(received[..HEADER_LEN], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
                assert_eq!(received[HEADER_LEN..], sent);
                transmit(&mut driver, PLAIN, &sent);
                assert_eq!(host.receive().1, sent);
            }
            for queue in [RX, TX] {
                let bytes = (0..64).map(|number| 60 + 22 * number).sum::<u64>();
                assert_eq!((counts(&driver, queue).bytes, counts(&driver, queue).errors), (bytes, 0));
            }
            driver.bench.end();
        }
    });
}

#[test]
fn segments_longer_than_a_buffer_arrive_whole() {
    in_namespace("segments_longer_than_a_buffer_arrive_whole", || {
        let mut driver = Driver::new(Net::tap("fctap").build().unwrap());
        let host = Interface::up("fctap");
        start(&mut driver, u64::MAX, &host);
        let mut slot = 0;
        let mut given = 0;
        for len in [60_000, 1515, 65_535, 9000] {
            // With all buffers at once, and with some only.
            for first in [48, 3] {
                give(&mut driver, given, first, 1526, 0x800);
                let (header, sent) = long_segment(len, 1);
                host.send(header, &sent).unwrap();
                if first < 48 {
                    give(&mut driver, given + first, 48 - first, 1526, 0x800);
                }
                given += 48;
                let received = receive(&mut driver, &mut slot, 0x800);
                assert_eq!(received[..2], header[..2], "{len} bytes: to be finished, to be cut");
                assert_eq!(received[4..10], header[4..], "how");
                assert_eq!(usize::from(received[10]), (HEADER_LEN + len).div_ceil(1526));
                assert!(received[HEADER_LEN..] == sent, "{len}, {first}");
            }
        }
        assert_eq!(counts(&driver, RX).errors, 0);
        driver.bench.end();
    });
}

/// What a driver does not take unfinished, the kernel finishes.
#[test]
fn a_driver_without_offloads_gets_finished_packets() {
    in_namespace("a_driver_without_offloads_gets_finished_packets", || {
        let mut driver = Driver::new(Net::tap("fctap").build().unwrap());
        let host = Interface::up("fctap");
        // Frames for a driver that takes more are not left to the next one.
        start(&mut driver, u64::MAX, &host);
        for _ in 0..4 {
            let (header, sent) = long_segment(60_000, 1);
            host.send(header, &sent).unwrap();
        }
        for wanted in [MRG_RXBUF, GUEST_TSO4 | MRG_RXBUF, 0] {
            start(&mut driver, wanted, &host);
            give(&mut driver, 0, 16, 1600, 0x1000);
            let (header, sent) = long_segment(IP_HEADERS + 10 * 1448, 1);
            host.send(header, &sent).unwrap();
            let mut slot = 0;
            for part in sent[IP_HEADERS..].chunks(1448) {
                let received = receive(&mut driver, &mut slot, 0x1000);
                assert_eq!(received[..2], [0, 0], "neither to be finished nor to be cut");
                assert_eq!(received[HEADER_LEN + IP_HEADERS..], *part);
            }
        }
        driver.bench.end();
    });
}

#[test]
fn segments_leave_uncut() {
    in_namespace("segments_leave_uncut", || {
        let mut driver = Driver::started(Net::tap("fctap").build().unwrap());
        let host = Interface::up("fctap");
        for len in [60_000, 2000, 65_549] {
            let (header, sent) = long_segment(len, 1);
            transmit(&mut driver, header, &sent);
            let (told, received) = host.receive();
            assert_eq!(told[..2], header[..2]);
            assert_eq!(told[4..6], header[4..6]);
            assert!(received == sent, "{len}");
        }
        driver.bench.end();
    });
}

#[test]
fn the_kernel_refuses_headers_that_are_not_true() {
    in_namespace("the_kernel_refuses_headers_that_are_not_true", || {
        let mut driver = Driver::started(Net::tap("fctap").build().unwrap());
        let host = Interface::up("fctap");
        let lies: [[u8; VNET_HEADER_LEN]; 4] = [
            // A kind of segments that there is not; the checksum behind the end; headers that are longer than
            // the frame; segments of no length.
            [0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0],
            [NEEDS_CSUM, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            [NEEDS_CSUM, 0, 0xff, 0xff, 0, 0, 0xf0, 0xff, 0x10, 0],
            [NEEDS_CSUM, GSO_TCPV4, 54, 0, 0, 0, 34, 0, 16, 0],
        ];
        for lie in lies {
            transmit(&mut driver, lie, &frame(0, 100));
        }
        assert_eq!(counts(&driver, TX).errors, 4);
        transmit(&mut driver, PLAIN, &[0; 13]);
        assert_eq!(counts(&driver, TX).errors, 5, "no Ethernet frame");
        transmit(&mut driver, PLAIN, &frame(1, 100));
        assert_eq!(host.receive().1, frame(1, 100));
        driver.bench.end();
    });
}

#[test]
fn an_interface_that_goes_down_comes_back() {
    in_namespace("an_interface_that_goes_down_comes_back", || {
        let mut driver = Driver::started(Net::tap("fctap").build().unwrap());
        let host = Interface::up("fctap");
        give(&mut driver, 0, 16, 1600, 0x1000);
        let mut slot = 0;
        for round in 1..=3 {
            host.set_up(false);
            transmit(&mut driver, PLAIN, &frame(0, 100));
            assert_eq!(counts(&driver, TX).errors, round, "dropped");
            host.set_up(true);
            transmit(&mut driver, PLAIN, &frame(1, 100));
            assert_eq!(host.receive().1, frame(1, 100));
            host.send(PLAIN, &frame(2, 100)).unwrap();
            assert_eq!(receive(&mut driver, &mut slot, 0x1000)[HEADER_LEN..], frame(2, 100));
        }
        assert_eq!(driver.config(6, 2), [1, 0], "the link is up");
        assert!(counts(&driver, RX).kicks <= 10, "{:?}", counts(&driver, RX));
        driver.bench.end();
    });
}

#[test]
fn an_interface_that_is_deleted_is_a_link_that_is_down() {
    in_namespace("an_interface_that_is_deleted_is_a_link_that_is_down", || {
        // Noticed by the direction that waits, and by the one that sends.
        for waits in [true, false] {
            let mut driver = Driver::started(Net::tap("fctap").build().unwrap());
            let host = Interface::up("fctap");
            if waits {
                give(&mut driver, 0, 4, 1600, 0x1000);
            }
            transmit(&mut driver, PLAIN, &frame(1, 100));
            host.delete();
            if !waits {
                transmit(&mut driver, PLAIN, &frame(1, 100));
            }
            driver.until("the link to be down", |driver| driver.config(6, 2) == [0, 0]);
            driver.until("the driver to be told", |driver| driver.read(0x060) & 2 != 0);
            let before = counts(&driver, RX).kicks;
            for _ in 0..20 {
                transmit(&mut driver, PLAIN, &frame(1, 100));
            }
            assert_eq!(counts(&driver, RX).kicks, before, "nothing is waited for");
            assert_eq!(counts(&driver, TX).errors, if waits { 20 } else { 21 });
            driver.start(u64::MAX);
            transmit(&mut driver, PLAIN, &frame(1, 100));
            assert_eq!(driver.config(6, 2), [0, 0], "it stays down");
            driver.bench.end();
        }
    });
}

#[test]
fn a_reset_in_the_middle_of_traffic_is_over_when_it_is() {
    in_namespace("a_reset_in_the_middle_of_traffic_is_over_when_it_is", || {
        let mut driver = Driver::started(Net::tap("fctap").build().unwrap());
        let host = Interface::up("fctap");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    // Full, where nobody reads.
                    let _: std::io::Result<()> = host.send(PLAIN, &frame(3, 1000));
                }
            });
            for round in 0..50 {
                give(&mut driver, 0, 100, 1600, 0x1000);
                for _ in 0..round {
                    driver.wait_used(RX);
                }
                driver.write(0x070, 0);
                let before = driver.get(BUFFERS, 0x10_0000);
                thread::yield_now();
                assert!(driver.get(BUFFERS, 0x10_0000) == before, "memory changed after the reset");
                driver.start(if round % 2 == 0 { u64::MAX } else { 0 });
            }
            done.store(true, Ordering::SeqCst);
        });
        start(&mut driver, 0, &host);
        host.send(PLAIN, &frame(3, 1000)).unwrap();
        let mut slot = 0;
        give(&mut driver, slot, 1, 1600, 0x1000);
        assert_eq!(receive(&mut driver, &mut slot, 0x1000)[HEADER_LEN..], frame(3, 1000));
        driver.bench.end();
    });
}

/// A control command; returns the answer.
fn control(driver: &mut Driver, queue: u16, command: &[u8]) -> u8 {
    let at = BUFFERS + 0x90_0000;
    driver.put(at, command);
    driver.put(at + 0x100, &[0xee]);
    let half = command.len() as u32 / 2;
    let chain = [
        Seg::readable(at, half),
        Seg::readable(at + u64::from(half), command.len() as u32 - half),
        Seg::writable(at + 0x100, 1),
    ];
    assert_eq!(driver.request(queue, &chain), 1);
    driver.get(at + 0x100, 1)[0]
}

/// Sends frames of many flows. Returns how many each pair has received.
fn spread(driver: &mut Driver, host: &Interface) -> [usize; 2] {
    let mut received = [0, 0];
    for port in 0..64 {
        let (_, sent) = long_segment(1000, 1000 + port);
        host.send(PLAIN, &sent).unwrap();
        driver.until("a frame on either queue", |driver| {
            let queue = (0..2_u16).find(|pair| driver.used(pair * 2).is_some());
            queue.inspect(|pair| received[usize::from(*pair)] += 1).is_some()
        });
    }
    received
}

fn give_both(driver: &mut Driver) {
    for queue in [0, 2] {
        for slot in 0..128 {
            driver
                .offer(queue, &[Seg::writable(BUFFERS + 0x1000 * slot + 0x10_0000 * u64::from(queue), 1600)]);
        }
        driver.kick(queue);
    }
}

#[test]
fn the_driver_says_how_many_pairs_it_uses() {
    in_namespace("the_driver_says_how_many_pairs_it_uses", || {
        let mut driver = Driver::started(Net::tap("fctap").queue_pairs(2).build().unwrap());
        let host = Interface::up("fctap");
        assert_eq!(driver.config(8, 2), [2, 0]);
        give_both(&mut driver);
        assert_eq!(spread(&mut driver, &host), [64, 0], "one pair, to begin with");
        for refused in [&[4, 0, 0, 0][..], &[4, 0, 3, 0], &[4, 1, 2, 0], &[0, 0, 2, 0], &[4, 0, 2], &[4]] {
            assert_eq!(control(&mut driver, CONTROL, refused), 1, "{refused:?}");
        }
        assert_eq!(control(&mut driver, CONTROL, &[4, 0, 2, 0]), 0);
        let [first, second] = spread(&mut driver, &host);
        assert!(first > 0 && second > 0, "{first} {second}");
        // A pause is not a reset.
        driver.bench.transport.save();
        // The kernel may have led most frames, of the last time and of this, to the first pair.
        give_both(&mut driver);
        let [_, second] = spread(&mut driver, &host);
        assert!(second > 0);
        assert_eq!(control(&mut driver, CONTROL, &[4, 0, 1, 0]), 0);
        driver.start(u64::MAX);
        give_both(&mut driver);
        assert_eq!(control(&mut driver, CONTROL, &[4]), 1);
        assert_eq!(spread(&mut driver, &host), [64, 0]);
        assert_eq!(control(&mut driver, CONTROL, &[4, 0, 2, 0]), 0);
        driver.start(u64::MAX);
        give_both(&mut driver);
        // The device comes up on its own thread: an answer says that it has.
        assert_eq!(control(&mut driver, CONTROL, &[4]), 1);
        assert_eq!(spread(&mut driver, &host), [64, 0], "a reset takes it back");
        // Changes without end are not for free to others.
        let answers: Vec<_> =
            (0..40).map(|at| control(&mut driver, CONTROL, &[4, 0, 2 - at % 2, 0])).collect();
        assert!(answers.contains(&1), "{answers:?}");
        // Both pairs send, whether enabled or not.
        for queue in [1, 3] {
            driver.put(BUFFERS, &[&[0; HEADER_LEN][..], &frame(queue.into(), 100)].concat());
            driver.request(queue, &[Seg::readable(BUFFERS, 112)]);
            assert_eq!(host.receive().1, frame(queue.into(), 100));
        }
        // Where several pairs are not agreed on, the control queue is behind the first.
        driver.start(!MQ);
        assert_eq!(control(&mut driver, 2, &[4, 0, 2, 0]), 1);
        driver.bench.end();
    });
}

#[test]
fn pairs_come_and_go_under_traffic() {
    in_namespace("pairs_come_and_go_under_traffic", || {
        let mut driver = Driver::started(Net::tap("fctap").queue_pairs(2).build().unwrap());
        let host = Interface::up("fctap");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for port in 0.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    // A queue that is disabled with frames in it loses them.
                    let _: std::io::Result<()> = host.send(PLAIN, &long_segment(1000, port).1);
                }
            });
            for round in 0..20 {
                driver.start(u64::MAX);
                give_both(&mut driver);
                for count in [2, 1] {
                    driver.wait_used(0);
                    control(&mut driver, CONTROL, &[4, 0, count, 0]);
                }
                assert_eq!(driver.read(0x070), 0xf, "round {round}");
            }
            done.store(true, Ordering::SeqCst);
        });
        driver.bench.end();
    });
}

#[test]
fn descriptors_may_be_given() {
    in_namespace("descriptors_may_be_given", || {
        let attach = |name: &str, mode: Mode| -> OwnedFd {
            let tap = Tap::open().unwrap();
            tap.attach(name, mode).unwrap();
            tap.into_inner()
        };
        let plain = Mode::TAP.and(Mode::NO_PACKET_INFO);
        let whole = plain.and(Mode::VNET_HEADER);
        let several = whole.and(Mode::MULTI_QUEUE);
        let mut driver = Driver::started(Net::fds(vec![attach("fca", whole)]).build().unwrap());
        let host = Interface::up("fca");
        transmit(&mut driver, PLAIN, &frame(1, 100));
        assert_eq!(host.receive().1, frame(1, 100));
        driver.bench.end();

        let two = vec![attach("fcb", several), attach("fcb", several)];
        let mut driver = Driver::started(Net::fds(two).build().unwrap());
        drop(Interface::up("fcb"));
        assert_eq!(control(&mut driver, CONTROL, &[4, 0, 2, 0]), 0);
        driver.bench.end();

        let refused = |fds| Net::fds(fds).build().unwrap_err().to_string();
        let lacks = |what: &str| format!("TAP descriptor 0 of interface {what}");
        assert_eq!(refused(vec![attach("fcc", plain)]), lacks("fcc lacks IFF_VNET_HDR"));
        let tun = Mode::TUN.and(Mode::NO_PACKET_INFO).and(Mode::VNET_HEADER);
        assert_eq!(
            refused(vec![attach("fce", tun)]),
            lacks("fce is a TUN's, which carries no Ethernet frames")
        );
        assert_eq!(
            refused(vec![attach("fcf", whole), attach("fcg", whole)]),
            lacks("fcf lacks IFF_MULTI_QUEUE")
        );
        assert_eq!(
            refused(vec![attach("fch", several), attach("fci", several)]),
            "TAP descriptor 1 of interface fci is of another interface than the first"
        );
        let disabled = Tap::given(attach("fcd", several)).unwrap();
        disabled.set_enabled(false).unwrap();
        assert_eq!(refused(vec![disabled.into_inner()]), lacks("fcd is of a disabled queue"));
        let nothing = "TAP descriptor 0 is not attached to a TAP interface";
        assert_eq!(refused(vec![Tap::open().unwrap().into_inner()]), nothing);
        assert_eq!(refused(vec![File::open("/dev/null").unwrap().into()]), nothing);
    });
}

#[test]
fn interfaces_that_cannot_be_had_are_refused_by_name() {
    in_namespace("interfaces_that_cannot_be_had_are_refused_by_name", || {
        let build = |pairs| Net::tap("fctap").queue_pairs(pairs).build();
        let one = build(1).unwrap();
        assert!(matches!(build(1), Err(NetError::Busy { name, .. }) if name == "fctap"));
        let refused = build(2).unwrap_err();
        assert_eq!(refused.to_string(), "interface fctap exists, and is not a multi-queue TAP interface");
        drop(one);
        let two = build(2).unwrap();
        assert!(matches!(build(1), Err(NetError::Mode { multi_queue: false, .. })));
        drop(two);
        assert!(matches!(Net::tap("lo").build(), Err(NetError::Mode { .. })));
        build(16).unwrap();
    });
}

#[test]
fn offers_what_the_kernel_takes() {
    in_namespace("offers_what_the_kernel_takes", || {
        let offered = Net::tap("fctap").build().unwrap().features;
        let always = features::CSUM | GUEST_CSUM | GUEST_TSO4 | HOST_TSO4 | MRG_RXBUF | features::STATUS;
        assert_eq!(offered & always, always);
        assert_eq!(offered & (MQ | features::MAC | features::MTU), 0, "what nobody asked for");
        let tap = Tap::open().unwrap();
        tap.attach("fctap", Mode::TAP.and(Mode::VNET_HEADER)).unwrap();
        let uso = libc::TUN_F_CSUM | libc::TUN_F_USO4 | libc::TUN_F_USO6;
        let uso_offered = offered & features::HOST_USO != 0;
        assert_eq!(tap.set_offloads(uso).is_ok(), uso_offered);
    });
}
