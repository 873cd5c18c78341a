//! One connection at a time: how it begins, carries bytes, and ends.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use super::guest::{Guest, Ports, RX_PAYLOAD, WINDOW};
use super::*;
use crate::vsock::packet::{Header, op, shut};
use crate::vsock::table::FIRST_PORT;

const PORTS: Ports = (1000, 52);

/// A guest that is connected to a program on the host.
fn connected(place: &Place) -> (Guest, UnixStream) {
    connected_with(place, place.vsock())
}

fn connected_with(place: &Place, vsock: Vsock) -> (Guest, UnixStream) {
    let listener = place.listen(PORTS.1);
    let mut guest = Guest::new(vsock.build().unwrap());
    guest.connect(PORTS);
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    (guest, stream)
}

#[test]
fn the_guest_connects_and_talks() {
    let place = Place::new();
    let (mut guest, mut host) = connected(&place);
    guest.send_data(PORTS, b"ping");
    let mut bytes = [0; 4];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ping");
    host.write_all(b"pong").unwrap();
    let (header, payload) = guest.next();
    assert_eq!((header.op, payload.as_slice()), (op::RW, b"pong".as_slice()));
    assert_eq!(header.fwd_cnt, 4);
    let counts = guest.driver.bench.transport.counts();
    assert_eq!((counts[0].bytes, counts[1].bytes), (4, 4));
    guest.end();
    assert!(is_end(host.read(&mut bytes)), "the device's end is the connection's");
    assert!(!exists(&place.path()));
}

#[test]
fn nobody_listens_and_the_guest_is_refused() {
    let place = Place::new();
    let mut guest = Guest::new(place.vsock().build().unwrap());
    guest.send(PORTS, op::REQUEST);
    guest.expect(PORTS, op::RST);
    // A file that is no socket, and a socket that nobody listens at.
    std::fs::write(place.folder.as_path().join("v.sock_53"), "").unwrap();
    drop(place.listen(54));
    for port in [53, 54, 0, u32::MAX] {
        guest.send((1000, port), op::REQUEST);
        guest.expect((1000, port), op::RST);
    }
    assert_eq!(guest.driver.bench.transport.counts()[0].errors, 5);
    guest.end();
}

#[test]
fn the_host_connects_and_talks() {
    let place = Place::new();
    let mut guest = Guest::new(place.vsock().build().unwrap());
    let mut hosts = Vec::new();
    for n in 0..3 {
        let mut host = place.connect(b"CONNECT 7\nearly");
        let ports = (7, FIRST_PORT + n);
        guest.expect(ports, op::REQUEST);
        guest.send(ports, op::RESPONSE);
        assert_eq!(answer(&mut host), format!("OK {}\n", ports.1));
        let (header, payload) = guest.next();
        assert_eq!((header.op, payload.as_slice()), (op::RW, b"early".as_slice()));
        guest.send_data(ports, b"hello");
        let mut bytes = [0; 5];
        host.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        hosts.push(host);
    }
    guest.end();
}

#[test]
fn the_guest_refuses_the_host() {
    let place = Place::new();
    let mut guest = Guest::new(place.vsock().build().unwrap());
    let mut host = place.connect(b"CONNECT 7\n");
    let ports = (7, FIRST_PORT);
    guest.expect(ports, op::REQUEST);
    guest.send(ports, op::RST);
    assert_eq!(answer(&mut host), "");
    guest.end();
}

#[test]
fn a_client_that_goes_before_the_answer_is_told_to_the_guest() {
    let place = Place::new();
    let mut guest = Guest::new(place.vsock().build().unwrap());
    let host = place.connect(b"CONNECT 7\n");
    guest.expect((7, FIRST_PORT), op::REQUEST);
    drop(host);
    guest.expect((7, FIRST_PORT), op::RST);
    guest.end();
}

#[test]
fn a_client_may_come_before_the_guest_is_up() {
    let place = Place::new();
    let device = place.vsock().build().unwrap();
    let mut host = place.connect(b"CONNECT 7\n");
    let mut guest = Guest::new(device);
    guest.expect((7, FIRST_PORT), op::REQUEST);
    guest.send((7, FIRST_PORT), op::RESPONSE);
    assert_eq!(answer(&mut host), format!("OK {FIRST_PORT}\n"));
    guest.end();
}

#[test]
fn large_streams_arrive_whole_both_ways() {
    const TOTAL: usize = 64 << 20;
    let place = Place::new();
    let (mut guest, host) = connected(&place);
    let mut reader = host.try_clone().unwrap();
    let reads = thread::spawn(move || {
        let (mut expected, mut seen, mut buffer) = (pattern(1), 0, vec![0; 200_000]);
        loop {
            let len = 1 + (seen * 7919) % buffer.len();
            match reader.read(&mut buffer[..len]).unwrap() {
                0 => return seen,
                count => {
                    assert!(buffer[..count].iter().all(|byte| *byte == expected()), "behind {seen}");
                    seen += count;
                }
            }
        }
    });
    let mut writer = host;
    let writes = thread::spawn(move || {
        let (mut next, mut sent) = (pattern(2), 0);
        while sent < TOTAL {
            let len = (1 + (sent * 31) % 150_000).min(TOTAL - sent);
            let bytes: Vec<u8> = (0..len).map(|_| next()).collect();
            writer.write_all(&bytes).unwrap();
            sent += len;
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });

    let (mut sends, mut expected) = (pattern(1), pattern(2));
    let (mut sent, mut seen, mut ended) = (0, 0, false);
    let (mut passed_on, mut window) = (0, 64 << 10);
    let mut over = false;
    while !over {
        let room = window - (sent as u32).wrapping_sub(passed_on) as usize;
        let len = (1 + (sent * 13) % 60_000).min(room).min(TOTAL - sent);
        if len > 0 {
            let bytes: Vec<u8> = (0..len).map(|_| sends()).collect();
            guest.send_data(PORTS, &bytes);
            sent += len;
            if sent == TOTAL {
                guest.shutdown(PORTS, shut::SEND);
            }
        }
        guest.poll();
        while let Some((header, payload)) = guest.arrived.pop_front() {
            (passed_on, window) = (header.fwd_cnt, header.buf_alloc as usize);
            match header.op {
                op::RW => {
                    assert!(payload.iter().all(|byte| *byte == expected()), "behind {seen}");
                    seen += payload.len();
                }
                op::SHUTDOWN => {
                    assert_eq!(header.flags & shut::SEND, shut::SEND);
                    ended = true;
                }
                op::CREDIT_UPDATE | op::CREDIT_REQUEST => {}
                op::RST => over = true,
                op => panic!("operation {op}"),
            }
        }
    }
    writes.join().unwrap();
    assert!(ended, "the reset follows the end of both directions");
    assert_eq!((sent, seen), (TOTAL, TOTAL));
    assert_eq!(reads.join().unwrap(), TOTAL);
    guest.end();
}

#[test]
fn the_guest_closes_its_half_after_all_was_delivered() {
    let place = Place::new();
    let (mut guest, mut host) = connected(&place);
    // More than the socket takes at once.
    let bytes = vec![7; 60_000];
    for _ in 0..4 {
        guest.send_data(PORTS, &bytes);
    }
    guest.shutdown(PORTS, shut::SEND);
    let mut all = Vec::new();
    host.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 240_000);
    // The other half goes on.
    host.write_all(b"still here").unwrap();
    assert_eq!(guest.find(op::RW).1, b"still here");
    drop(host);
    let (header, _) = guest.find(op::SHUTDOWN);
    assert_ne!(header.flags & shut::SEND, 0);
    guest.expect(PORTS, op::RST);
    guest.end();
}

#[test]
fn the_host_closes_its_half_and_the_other_goes_on() {
    let place = Place::new();
    let (mut guest, mut host) = connected(&place);
    host.write_all(b"last words").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    let (bytes, header) = guest.read_stream();
    assert_eq!(
        (bytes.as_slice(), header.op, header.flags),
        (b"last words".as_slice(), op::SHUTDOWN, shut::SEND)
    );
    guest.send_data(PORTS, b"and then");
    let mut bytes = [0; 8];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"and then");
    guest.shutdown(PORTS, shut::BOTH);
    guest.expect(PORTS, op::RST);
    assert_eq!(host.read(&mut bytes).unwrap(), 0);
    guest.end();
}

#[test]
fn a_guest_that_closes_both_is_answered_by_a_reset() {
    let place = Place::new();
    let (mut guest, mut host) = connected(&place);
    guest.send_data(PORTS, b"bye");
    guest.shutdown(PORTS, shut::BOTH);
    guest.expect(PORTS, op::RST);
    let mut all = Vec::new();
    host.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"bye");
    // The ports are free again.
    guest.send(PORTS, op::RW);
    guest.expect(PORTS, op::RST);
    guest.end();
}

#[test]
fn a_guest_that_receives_no_more_is_sent_no_more() {
    let place = Place::new();
    let (mut guest, mut host) = connected(&place);
    guest.shutdown(PORTS, shut::RECEIVE);
    guest.drain();
    wait_for("the host to hear of it", || host.write_all(b"anybody?").is_err());
    guest.send_data(PORTS, b"one way");
    let mut bytes = [0; 7];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"one way");
    guest.is_alive();
    guest.end();
}

#[test]
fn what_a_killed_host_wrote_is_delivered() {
    let place = Place::new();
    let (mut guest, mut host) = connected(&place);
    guest.reads = false;
    // The guest's window is used up in the middle.
    host.write_all(&vec![5; 100_000]).unwrap();
    drop(host);
    let mut bytes = 0;
    while bytes < WINDOW as usize {
        bytes += guest.find(op::RW).1.len();
    }
    assert_eq!(bytes, WINDOW as usize);
    guest.find(op::CREDIT_REQUEST);
    let header = Header { fwd_cnt: WINDOW, ..guest.header(PORTS, op::CREDIT_UPDATE) };
    guest.send_raw(&header, &[]);
    let (rest, end) = guest.read_stream();
    assert_eq!((bytes + rest.len(), end.op, end.flags), (100_000, op::SHUTDOWN, shut::BOTH));
    guest.send(PORTS, op::RST);
    guest.is_alive();
    guest.end();
}

#[test]
fn a_guest_that_does_not_answer_a_close_is_reset() {
    let place = Place::new();
    let (mut guest, host) = connected_with(&place, place.vsock().timeouts(short_timeouts()));
    drop(host);
    assert_eq!(guest.expect(PORTS, op::SHUTDOWN).flags, shut::BOTH);
    guest.expect(PORTS, op::RST);
    guest.end();
}

#[test]
fn a_peer_that_never_takes_the_rest_is_given_up() {
    let place = Place::new();
    let (mut guest, mut host) = connected_with(&place, place.vsock().timeouts(short_timeouts()));
    let sent = fill(&mut guest);
    guest.shutdown(PORTS, shut::BOTH);
    guest.find(op::RST);
    let mut all = Vec::new();
    host.read_to_end(&mut all).unwrap();
    assert!(all.len() < sent, "the socket holds less than the guest sent");
    guest.end();
}

#[test]
fn a_peer_that_takes_its_time_gets_all_after_the_guest_has_gone() {
    let place = Place::new();
    let (mut guest, mut host) = connected(&place);
    let sent = fill(&mut guest);
    guest.shutdown(PORTS, shut::BOTH);
    // Linux waits a while for our answer, and then resets the connection itself.
    guest.send(PORTS, op::RST);
    guest.drain();
    guest.send(PORTS, op::REQUEST);
    guest.find(op::RST);
    let mut all = Vec::new();
    host.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), sent);
    guest.is_alive();
    guest.end();
}

#[test]
fn a_peer_that_goes_on_reading_is_not_given_up() {
    let place = Place::new();
    let timeouts = Timeouts { close: Duration::from_millis(800), ..Timeouts::default() };
    let (mut guest, mut host) = connected_with(&place, place.vsock().timeouts(timeouts));
    let sent = fill(&mut guest);
    guest.shutdown(PORTS, shut::BOTH);
    // Longer than the time-out altogether, and never as long without reading.
    let (mut all, mut bytes) = (0, vec![0; sent / 50]);
    loop {
        match host.read(&mut bytes).unwrap() {
            0 => break,
            count => all += count,
        }
        thread::sleep(Duration::from_millis(40));
    }
    assert_eq!(all, sent);
    guest.find(op::RST);
    guest.end();
}

/// Sends until the host's peer, which does not read, has used up the credit.
fn fill(guest: &mut Guest) -> usize {
    let (mut sent, bytes) = (0_u32, vec![1; 16 << 10]);
    let (mut passed_on, window) = (0_u32, 256 << 10);
    loop {
        while sent - passed_on + (16 << 10) <= window {
            guest.send_data(PORTS, &bytes);
            sent += 16 << 10;
        }
        guest.drain();
        // What was passed on is only told at half of the window: ask.
        guest.send(PORTS, op::CREDIT_REQUEST);
        let now = guest.find(op::CREDIT_UPDATE).0.fwd_cnt;
        guest.arrived.clear();
        if now == passed_on {
            return sent as usize;
        }
        passed_on = now;
    }
}

#[test]
fn the_guest_is_told_its_credit_at_half_of_the_window() {
    let place = Place::new();
    let (mut guest, mut host) = connected(&place);
    let reads = thread::spawn(move || {
        let mut bytes = vec![0; 128 << 10];
        host.read_exact(&mut bytes).unwrap();
        host
    });
    guest.send_data(PORTS, &vec![0; 64 << 10]);
    guest.send(PORTS, op::CREDIT_REQUEST);
    assert_eq!(guest.expect(PORTS, op::CREDIT_UPDATE).fwd_cnt, 64 << 10);
    guest.send_data(PORTS, &vec![0; 64 << 10]);
    let host = reads.join().unwrap();
    // Half of the window is 128 KiB, and 64 KiB of it were told.
    guest.send_data(PORTS, &vec![0; 64 << 10]);
    let header = guest.expect(PORTS, op::CREDIT_UPDATE);
    assert!(header.fwd_cnt > 64 << 10, "{header:?}");
    assert_eq!(header.buf_alloc, 256 << 10);
    drop(host);
    guest.end();
}

#[test]
fn more_than_the_credit_is_a_reset() {
    let place = Place::new();
    let (mut guest, mut host) = connected(&place);
    let sent = fill(&mut guest);
    assert!(sent >= 256 << 10);
    guest.send_data(PORTS, &vec![0; 16 << 10]);
    guest.find(op::RST);
    let mut all = Vec::new();
    let _ = host.read_to_end(&mut all);
    assert!(all.len() <= sent);
    guest.is_alive();
    guest.end();
}

#[test]
fn the_guest_is_sent_no_more_than_it_has_room_for() {
    let place = Place::new();
    let (mut guest, mut host) = connected(&place);
    guest.reads = false;
    let writes = thread::spawn(move || {
        host.write_all(&vec![3; 1 << 20]).unwrap();
        host
    });
    let mut seen = 0_u32;
    // Rooms of odd sizes, one after the other, as far as the guest's counter is concerned.
    for (round, room) in [WINDOW, 1, 5000, RX_PAYLOAD, 70_000].into_iter().enumerate() {
        if round > 0 {
            let header = Header { buf_alloc: room, fwd_cnt: seen, ..guest.header(PORTS, op::CREDIT_UPDATE) };
            guest.send_raw(&header, &[]);
        }
        let mut got = 0;
        loop {
            let (header, payload) = guest.next();
            got += payload.len() as u32;
            if header.op == op::CREDIT_REQUEST {
                break;
            }
        }
        assert_eq!(got, room);
        seen += got;
    }
    // A window that shrinks below what is on its way is no room, and no more.
    let header = Header { buf_alloc: 1, fwd_cnt: seen - 5, ..guest.header(PORTS, op::CREDIT_UPDATE) };
    guest.send_raw(&header, &[]);
    guest.is_alive();
    let header = Header { buf_alloc: u32::MAX, fwd_cnt: seen, ..guest.header(PORTS, op::CREDIT_UPDATE) };
    guest.send_raw(&header, &[]);
    while seen < 1 << 20 {
        seen += guest.find(op::RW).1.len() as u32;
    }
    drop(writes.join().unwrap());
    guest.end();
}

#[test]
fn a_reset_in_the_middle_closes_all_and_the_device_starts_again() {
    let place = Place::new();
    let (listener, dialed) = (place.listen(PORTS.1), place.listen(99));
    let mut guest = Guest::new(place.vsock().build().unwrap());
    for _ in 0..20 {
        guest.connect(PORTS);
        let (mut host, _) = listener.accept().unwrap();
        fill(&mut guest);
        // Some are being dialled, and a program on the host waits for its answer.
        guest.send((1, 99), op::REQUEST);
        guest.send((2, 98), op::REQUEST);
        let mut client = place.connect(b"CONNECT 7\n");
        guest.find(op::REQUEST);
        guest.driver.start(u64::MAX);
        guest.begin(256);
        let mut all = Vec::new();
        host.read_to_end(&mut all).unwrap();
        assert_eq!(answer(&mut client), "");
        // What was not accepted before the reset is no connection after it.
        guest.send((1, 99), op::RW);
        guest.expect((1, 99), op::RST);
    }
    // Whoever was dialled for nothing reads the end.
    dialed.set_nonblocking(true).unwrap();
    for (mut stream, _) in std::iter::from_fn(|| dialed.accept().ok()) {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    guest.end();
}
