//! A guest that sends what it likes.

use std::io::Read;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::guest::{Guest, Ports};
use super::*;
use crate::testing::{BUFFERS, Seg};
use crate::vsock::packet::{HEADER_LEN, Header, STREAM, op, shut};
use crate::vsock::worker::{RX, TX};

const PORTS: Ports = (1000, 52);

#[test]
fn addresses_of_others_are_dropped() {
    let place = Place::new();
    let mut guest = Guest::new(place.vsock().build().unwrap());
    let good = guest.header(PORTS, op::REQUEST);
    for (src_cid, dst_cid) in [(4, 2), (2, 2), (3, 3), (3, 1), (1 << 32 | 3, 2), (3, 1 << 32 | 2), (0, 0)] {
        guest.send_raw(&Header { src_cid, dst_cid, ..good }, &[]);
    }
    guest.drain();
    guest.is_alive();
    assert!(guest.arrived.is_empty());
    assert_eq!(guest.driver.bench.transport.counts()[RX as usize].errors, 7);
    guest.end();
}

#[test]
fn what_cannot_be_is_reset_and_resets_are_not_answered() {
    let place = Place::new();
    let listener = place.listen(PORTS.1);
    let mut guest = Guest::new(place.vsock().build().unwrap());
    // Of no connection.
    for op in [0, op::RESPONSE, op::SHUTDOWN, op::RW, op::CREDIT_UPDATE, op::CREDIT_REQUEST, 8, 0xffff] {
        guest.send(PORTS, op);
        guest.expect(PORTS, op::RST);
    }
    guest.send(PORTS, op::RST);
    // Of sockets of another type, which the answer is of too.
    for kind in [0, 2, 0xffff] {
        let header = guest.header(PORTS, op::REQUEST);
        guest.send_raw(&Header { kind, ..header }, &[]);
        assert_eq!(guest.expect(PORTS, op::RST).kind, kind);
    }
    // Of a connection.
    for op in [0, op::REQUEST, op::RESPONSE, 8, 0xffff] {
        guest.connect(PORTS);
        let (mut host, _) = listener.accept().unwrap();
        guest.send(PORTS, op);
        assert_eq!(guest.expect(PORTS, op::RST).kind, STREAM);
        assert_eq!(host.read(&mut [0]).unwrap(), 0);
    }
    // Data after its end; a length that the packet does not have.
    guest.connect(PORTS);
    guest.shutdown(PORTS, shut::SEND);
    guest.send_data(PORTS, b"more");
    guest.expect(PORTS, op::RST);
    for len in [5, 1 << 20, u32::MAX] {
        guest.connect(PORTS);
        let header = guest.header(PORTS, op::RW);
        guest.send_raw(&Header { len, ..header }, b"four");
        guest.expect(PORTS, op::RST);
    }
    // A reset of a connection is its end.
    guest.connect(PORTS);
    guest.send(PORTS, op::RST);
    guest.send(PORTS, op::RW);
    guest.expect(PORTS, op::RST);
    guest.end();
}

#[test]
fn data_before_the_connection_is_a_reset() {
    let place = Place::new();
    let mut guest = Guest::new(place.vsock().build().unwrap());
    let mut host = place.connect(b"CONNECT 7\n");
    let ports = (7, guest.find(op::REQUEST).0.src_port);
    guest.send_data(ports, b"too soon");
    guest.expect(ports, op::RST);
    assert_eq!(answer(&mut host), "");
    guest.end();
}

#[test]
fn more_resets_than_may_wait_hold_the_guests_packets_and_none_is_lost() {
    const ALL: u32 = 1000;
    let place = Place::new();
    let mut guest = Guest::with_buffers(place.vsock().build().unwrap(), 0, 1024);
    // The transmit queue holds 256 packets of one descriptor; nothing is received.
    let header = guest.header((0, 0), op::RW);
    let mut sent = 0;
    let mut used = 0;
    while sent < ALL {
        guest.driver.put(BUFFERS + u64::from(sent) * 64, &Header { src_port: sent, ..header }.bytes());
        if sent - used == 256 {
            // 256 wait, and 256 are in the queue: the device takes no more.
            if sent == 512 {
                std::thread::sleep(Duration::from_millis(50));
                assert!(guest.driver.used(TX).is_none());
                for slot in 0..64 {
                    guest.give(1024 + slot);
                }
                guest.driver.kick(RX);
            }
            let mut taken = false;
            wait_for("a packet to be taken", || {
                guest.poll();
                taken = guest.driver.used(TX).is_some();
                taken
            });
            used += 1;
        }
        guest.driver.offer(TX, &[Seg::readable(BUFFERS + u64::from(sent) * 64, HEADER_LEN as u32)]);
        guest.driver.kick(TX);
        sent += 1;
    }
    for port in 0..ALL {
        guest.expect((port, 0), op::RST);
    }
    guest.end();
}

#[test]
fn buffers_that_hold_no_packet_are_given_back() {
    let place = Place::new();
    let listener = place.listen(PORTS.1);
    let mut guest = Guest::with_buffers(place.vsock().build().unwrap(), 0, 1024);
    for len in [0, 1, 43, 44] {
        guest.driver.offer(RX, &[Seg::writable(BUFFERS, len)]);
    }
    // One that the device may only read.
    guest.driver.offer(RX, &[Seg::readable(BUFFERS, 1024)]);
    guest.send(PORTS, op::REQUEST);
    guest.driver.kick(RX);
    for _ in 0..5 {
        assert_eq!(guest.driver.wait_used(RX).1, 0);
    }
    drop(listener.accept().unwrap());
    // A packet in pieces, of a byte of payload each.
    for _ in 0..2 {
        let pieces: Vec<_> = (0..9).map(|at| Seg::writable(BUFFERS + 64 * at, 5)).collect();
        guest.driver.offer(RX, &pieces);
    }
    guest.driver.kick(RX);
    assert_eq!(guest.driver.wait_used(RX).1, HEADER_LEN as u32);
    let ops: Vec<u8> = (0..9).flat_map(|at| guest.driver.get(BUFFERS + 64 * at, 5)).collect();
    assert_eq!(Header::parse(ops[..HEADER_LEN].try_into().unwrap()).op, op::SHUTDOWN);
    guest.end();
}

/// More pieces than one system call takes: nothing is lost or forgotten.
#[test]
fn buffers_of_hundreds_of_pieces_are_filled() {
    const PIECES: u32 = 250;
    let place = Place::new();
    let listener = place.listen(PORTS.1);
    let mut guest = Guest::with_buffers(place.vsock().build().unwrap(), 1, 1024);
    guest.gives = false;
    guest.connect(PORTS);
    let (mut host, _) = listener.accept().unwrap();
    let mut next = pattern(7);
    let bytes: Vec<u8> = (0..40_000).map(|_| next()).collect();
    host.write_all(&bytes).unwrap();
    // One indirect table for each of a batch of buffers, whose pieces are 8 bytes.
    let mut all = Vec::new();
    while all.len() < bytes.len() {
        for slot in 0..16_u64 {
            let (table, at) = (BUFFERS + slot * 0x2000, BUFFERS + 0x10_0000 + slot * 0x1000);
            for piece in 0..PIECES {
                let mut descriptor = Vec::from((at + 8 * u64::from(piece)).to_le_bytes());
                descriptor.extend(8_u32.to_le_bytes());
                let (flags, next) = if piece + 1 < PIECES { (3_u16, piece as u16 + 1) } else { (2, 0) };
                descriptor.extend([flags.to_le_bytes(), next.to_le_bytes()].concat());
                guest.driver.put(table + 16 * u64::from(piece), &descriptor);
            }
            guest.driver.descriptor(RX, slot as u16, table, 16 * PIECES, 4, 0);
            guest.driver.publish(RX, slot as u16);
        }
        guest.driver.kick(RX);
        let mut left = 16;
        while left > 0 && all.len() < bytes.len() {
            let (slot, written) = guest.driver.wait_used(RX);
            let packet = guest.driver.get(BUFFERS + 0x10_0000 + u64::from(slot) * 0x1000, written as usize);
            all.extend_from_slice(&packet[HEADER_LEN..]);
            left -= 1;
        }
    }
    assert!(all == bytes);
    guest.end();
}

#[derive(Clone, Debug)]
enum Step {
    Packet(Header, usize),
    Bytes(Vec<u8>),
    Chain(Vec<(u64, u32, bool)>, u16),
    Host(Vec<u8>),
    HostEnds,
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = prop_oneof![Just(0), Just(1), Just(65536), Just(u32::MAX), any::<u32>()];
    let port = prop_oneof![3 => Just(52_u32), 1 => 50..56_u32, 1 => Just(1 << 30), 1 => any::<u32>()];
    let header = (
        (prop_oneof![20 => Just(3), 1 => any::<u64>()], prop_oneof![20 => Just(2), 1 => any::<u64>()]),
        (prop_oneof![5 => 0..4_u32, 1 => Just(7)], port),
        (prop_oneof![5 => Just(1), 1 => any::<u16>()], prop_oneof![20 => 1..8_u16, 1 => any::<u16>()]),
        (0..5_u32, number.clone(), number),
        (
            prop_oneof![5 => 0..3000_usize, 1 => Just(60_000)],
            prop_oneof![9 => Just(None), 1 => any::<u32>().prop_map(Some)],
        ),
    )
        .prop_map(|(cids, ports, (kind, op), (flags, buf_alloc, fwd_cnt), (payload, len))| {
            let header = Header {
                src_cid: cids.0,
                dst_cid: cids.1,
                src_port: ports.0,
                dst_port: ports.1,
                len: len.unwrap_or(payload as u32),
                kind,
                op,
                flags,
                buf_alloc,
                fwd_cnt,
            };
            Step::Packet(header, payload)
        });
    let seg = (prop_oneof![5 => BUFFERS..BUFFERS + 0x1000, 1 => any::<u64>()], 0..200_u32, any::<bool>());
    let step = prop_oneof![
        30 => header,
        5 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Step::Bytes),
        1 => (prop::collection::vec(seg, 1..6), 0..2_u16).prop_map(|(chain, queue)| Step::Chain(chain, queue)),
        5 => prop::collection::vec(any::<u8>(), 0..6000).prop_map(Step::Host),
        1 => Just(Step::HostEnds),
        1 => Just(Step::Reset),
    ];
    prop::collection::vec(step, 1..60)
}

/// Any packets, any bytes, any chains, with a host that does something now and then: the device lives, and
/// works after a reset.
#[test]
fn nothing_that_a_guest_sends_stops_the_device() {
    let place = Place::new();
    let listener = place.listen(52);
    listener.set_nonblocking(true).unwrap();
    let mut guest = Guest::new(place.vsock().timeouts(short_timeouts()).build().unwrap());
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let guest_cell = std::cell::RefCell::new(&mut guest);
    runner
        .run(&steps(), |steps| {
            let guest = &mut **guest_cell.borrow_mut();
            let mut hosts = Vec::new();
            let restart = |guest: &mut Guest| {
                guest.driver.start(u64::MAX);
                guest.begin(256);
            };
            for step in steps {
                match step {
                    Step::Packet(header, payload) => guest.send_raw(&header, &vec![1; payload]),
                    Step::Bytes(bytes) => {
                        let mut whole = [0; HEADER_LEN];
                        let len = bytes.len().min(HEADER_LEN);
                        whole[..len].copy_from_slice(&bytes[..len]);
                        guest.send_raw(&Header::parse(&whole), &[]);
                    }
                    Step::Chain(chain, queue) => {
                        let chain: Vec<_> = chain
                            .into_iter()
                            .map(|(addr, len, writable)| Seg { addr, len, writable })
                            .collect();
                        guest.driver.offer(queue, &chain);
                        guest.driver.kick(queue);
                        // Whether that was allowed or not: the queues are not the test's any more.
                        restart(guest);
                    }
                    Step::Host(bytes) => {
                        hosts.extend(listener.accept().map(|(stream, _)| stream));
                        if let Some(mut host) = hosts.last() {
                            host.set_nonblocking(true).unwrap();
                            let _: io::Result<usize> = host.write(&bytes);
                            let _: io::Result<usize> = host.read(&mut [0; 4096]);
                        } else if let Ok(mut client) = UnixStream::connect(place.path()) {
                            // The device may be reset at this moment.
                            let _: io::Result<()> = client.write_all(b"CONNECT 7\n");
                            hosts.push(client);
                        }
                    }
                    Step::HostEnds => drop(hosts.pop()),
                    Step::Reset => restart(guest),
                }
                guest.poll();
                guest.arrived.clear();
            }
            while listener.accept().is_ok() {}
            restart(guest);
            guest.is_alive();
            Ok(())
        })
        .unwrap();
    guest.end();
}
