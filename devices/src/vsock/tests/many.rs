//! Many connections at once: the limit, fairness, and that nobody waits for a slow peer.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use event_manager::EventSet;

use super::guest::{Guest, Ports};
use super::*;
use crate::virtio::{Broken, Card, Device, Events, Job, Line, Queue};
use crate::vsock::packet::{Header, op, shut};
use crate::vsock::table::FIRST_PORT;

#[test]
fn a_thousand_and_twenty_three_connections_at_once() {
    const ALL: u32 = 1023;
    let place = Place::new();
    let listener = place.listen(52);
    let mut guest = Guest::new(place.vsock().build().unwrap());
    // More than the program's queue takes: they are dialled again as it accepts.
    let accepts = thread::spawn(move || {
        (0..ALL).map(|_| listener.accept().map(|(stream, _)| stream).unwrap()).collect::<Vec<_>>()
    });
    for port in 0..ALL {
        guest.send((port, 52), op::REQUEST);
    }
    for _ in 0..ALL {
        assert_eq!(guest.next().0.op, op::RESPONSE);
    }
    let mut hosts = accepts.join().unwrap();
    guest.send((ALL, 52), op::REQUEST);
    guest.expect((ALL, 52), op::RST);
    assert_eq!(answer(&mut place.connect(b"CONNECT 7\n")), "", "there is no place for a client either");

    for port in 0..ALL {
        guest.send_data((port, 52), &port.to_le_bytes());
    }
    let mut ports = BTreeMap::new();
    for (at, host) in hosts.iter_mut().enumerate() {
        let mut bytes = [0; 4];
        host.read_exact(&mut bytes).unwrap();
        host.write_all(&bytes).unwrap();
        ports.insert(u32::from_le_bytes(bytes), at);
    }
    assert_eq!(ports.len(), ALL as usize);
    for _ in 0..ALL {
        let (header, payload) = guest.next();
        assert_eq!((header.op, payload.as_slice()), (op::RW, header.dst_port.to_le_bytes().as_slice()));
    }
    for port in 0..ALL {
        guest.shutdown((port, 52), shut::BOTH);
        guest.expect((port, 52), op::RST);
    }
    for host in &mut hosts {
        assert_eq!(host.read(&mut [0]).unwrap(), 0);
    }
    // And there is place again, from the host this time.
    let mut client = place.connect(b"CONNECT 7\n");
    let request = guest.find(op::REQUEST).0;
    guest.send((7, request.src_port), op::RESPONSE);
    assert_eq!(answer(&mut client), format!("OK {}\n", request.src_port));
    guest.end();
}

#[test]
fn a_thousand_clients_at_once() {
    const ALL: u32 = 1000;
    let place = Place::new();
    let mut guest = Guest::new(place.vsock().build().unwrap());
    let mut clients: Vec<_> = (0..ALL).map(|_| UnixStream::connect(place.path()).unwrap()).collect();
    // In an order of their own, and each line in two pieces.
    for client in clients.iter_mut().rev() {
        client.write_all(b"CONNECT").unwrap();
    }
    for client in &mut clients {
        client.write_all(b" 77\n").unwrap();
    }
    let mut ports = Vec::new();
    for _ in 0..ALL {
        let (header, _) = guest.next();
        assert_eq!((header.op, header.dst_port), (op::REQUEST, 77));
        guest.send((77, header.src_port), op::RESPONSE);
        ports.push(header.src_port);
    }
    let mut told: Vec<u32> = clients
        .iter_mut()
        .map(|client| answer(client).trim().strip_prefix("OK ").unwrap().parse().unwrap())
        .collect();
    told.sort_unstable();
    assert_eq!(told, (FIRST_PORT..FIRST_PORT + ALL).collect::<Vec<_>>());
    assert_eq!(told, ports);
    guest.end();
}

#[test]
fn a_peer_that_never_reads_holds_nobody_up() {
    let place = Place::new();
    let listener = place.listen(52);
    let mut guest = Guest::new(place.vsock().build().unwrap());
    guest.connect((1, 52));
    let (stuck, _) = listener.accept().unwrap();
    guest.connect((2, 52));
    let (mut other, _) = listener.accept().unwrap();
    // All credit of the one that does not read.
    let mut sent = 0;
    let mut passed_on = 0;
    loop {
        while sent - passed_on < 256 << 10 {
            guest.send_data((1, 52), &[1; 16 << 10]);
            sent += 16 << 10;
        }
        guest.drain();
        guest.send((1, 52), op::CREDIT_REQUEST);
        let now = guest.find(op::CREDIT_UPDATE).0.fwd_cnt;
        guest.arrived.clear();
        if now == passed_on {
            break;
        }
        passed_on = now;
    }
    // The other one goes on, both ways.
    for round in 0..2000_u32 {
        guest.send_data((2, 52), &round.to_le_bytes());
        let mut bytes = [0; 4];
        other.read_exact(&mut bytes).unwrap();
        other.write_all(&bytes).unwrap();
        let (header, payload) = guest.find(op::RW);
        assert_eq!((header.dst_port, payload.as_slice()), (2, round.to_le_bytes().as_slice()));
    }
    drop(stuck);
    guest.end();
}

#[test]
fn a_guest_that_does_not_read_one_connection_reads_the_others() {
    let place = Place::new();
    let listener = place.listen(52);
    let mut guest = Guest::new(place.vsock().build().unwrap());
    guest.reads = false;
    guest.connect((1, 52));
    let (mut stuck, _) = listener.accept().unwrap();
    stuck.set_nonblocking(true).unwrap();
    wait_for("the window to be full", || {
        guest.poll();
        stuck.write(&[0; 1 << 16]).is_err()
            && guest.arrived.iter().any(|(header, _)| header.op == op::CREDIT_REQUEST)
    });
    guest.arrived.clear();
    guest.connect((2, 52));
    let (mut other, _) = listener.accept().unwrap();
    for round in 0..1000_u32 {
        other.write_all(&round.to_le_bytes()).unwrap();
        let (header, payload) = guest.find(op::RW);
        assert_eq!((header.dst_port, payload.as_slice()), (2, round.to_le_bytes().as_slice()));
    }
    guest.end();
}

#[test]
fn all_that_have_something_to_send_have_their_turn() {
    const ALL: usize = 8;
    const BUFFERS: u64 = 64;
    let place = Place::new();
    let listener = place.listen(52);
    let mut guest = Guest::with_buffers(place.vsock().build().unwrap(), 0, 1024 + 44);
    (guest.reads, guest.gives) = (false, false);
    let mut hosts = Vec::new();
    for port in 0..ALL as u32 {
        guest.give(0);
        let header = Header { buf_alloc: u32::MAX, ..guest.header((port, 52), op::REQUEST) };
        guest.send_raw(&header, &[]);
        guest.expect((port, 52), op::RESPONSE);
        hosts.push(listener.accept().unwrap().0);
    }
    // All have more waiting than there is room for.
    let mut waiting = [0; ALL];
    for (host, waiting) in hosts.iter_mut().zip(&mut waiting) {
        host.set_nonblocking(true).unwrap();
        while let Ok(count) = host.write(&[0; 16 << 10]) {
            *waiting += count;
        }
    }
    guest.gives = true;
    (0..BUFFERS).for_each(|slot| guest.give(slot));
    guest.driver.kick(0);

    // From when all have begun until one of them has come to its end, none gets ahead by more than two turns.
    let (mut bytes, mut begun) = ([0; ALL], None);
    let mut ahead = Vec::new();
    while bytes != waiting {
        let (header, payload) = guest.find(op::RW);
        bytes[header.dst_port as usize] += payload.len();
        if bytes.contains(&0) {
            continue;
        }
        let begun = *begun.get_or_insert(bytes);
        if bytes.iter().zip(&waiting).all(|(count, all)| count < all) {
            let gained = || bytes.iter().zip(&begun).map(|(count, begun)| count - begun);
            ahead.push(gained().max().unwrap() - gained().min().unwrap());
        }
    }
    assert!(ahead.len() > 100, "there was a time when all were in the middle");
    assert!(ahead.iter().all(|ahead| *ahead <= 2 * 64 * 1024), "{:?} bytes ahead", ahead.iter().max());
    drop(hosts);
    guest.end();
}

/// A card that counts how often it is called.
struct Counted {
    card: Box<dyn Card>,
    calls: Arc<AtomicU64>,
}

impl Card for Counted {
    fn job(&self) -> Job {
        self.card.job()
    }

    fn prepare(&mut self) {
        self.card.prepare();
    }

    fn register(&mut self, events: &mut Events<'_, '_>) -> io::Result<()> {
        self.card.register(events)
    }

    fn activate(&mut self, features: u64, line: &Arc<Line>, events: &mut Events<'_, '_>) -> io::Result<()> {
        self.card.activate(features, line, events)
    }

    fn start_queue(&mut self, queue: Queue, events: &mut Events<'_, '_>) {
        self.card.start_queue(queue, events);
    }

    fn stop_queue(&mut self, index: u16, events: &mut Events<'_, '_>) -> Option<Queue> {
        self.card.stop_queue(index, events)
    }

    fn deactivate(&mut self, events: &mut Events<'_, '_>) {
        self.card.deactivate(events);
    }

    fn kicked(&mut self, index: u16, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.card.kicked(index, events)
    }

    fn ready(&mut self, token: u32, ready: EventSet, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.card.ready(token, ready, events)
    }

    fn patience(&self) -> Option<Duration> {
        self.card.patience()
    }

    fn due(&mut self, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.card.due(events)
    }
}

fn counted(mut device: Device) -> (Device, Arc<AtomicU64>) {
    let calls = Arc::<AtomicU64>::default();
    device.cards = device
        .cards
        .into_iter()
        .map(|(queues, card)| {
            let card: Box<dyn Card> = Box::new(Counted { card, calls: Arc::clone(&calls) });
            (queues, card)
        })
        .collect();
    (device, calls)
}

/// How often the device is called while nothing happens: in the quietest of some spans of time, as what was on
/// its way has to arrive first.
fn calls_while_idle(calls: &AtomicU64) -> u64 {
    let mut quietest = u64::MAX;
    for _ in 0..20 {
        let before = calls.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(300));
        quietest = quietest.min(calls.load(Ordering::SeqCst) - before);
        if quietest == 0 {
            break;
        }
    }
    quietest
}

#[test]
fn nobody_spins_while_somebody_is_slow() {
    let place = Place::new();
    let listener = place.listen(52);
    let (device, calls) = counted(place.vsock().build().unwrap());
    let mut guest = Guest::new(device);
    guest.reads = false;
    assert_eq!(calls_while_idle(&calls), 0, "nothing connected");

    // Others may send meanwhile.
    let connect = |guest: &mut Guest, ports: Ports| {
        guest.send(ports, op::REQUEST);
        guest.find(op::RESPONSE);
        listener.accept().unwrap().0
    };
    // The guest has no room, and the peer has more to say, and then goes away.
    let mut host = connect(&mut guest, (1, 52));
    host.set_nonblocking(true).unwrap();
    wait_for("the window to be full", || {
        guest.poll();
        host.write(&[0; 1 << 16]).is_err()
            && guest.arrived.iter().any(|(header, _)| header.op == op::CREDIT_REQUEST)
    });
    assert_eq!(calls_while_idle(&calls), 0, "the guest has no room");
    drop(host);
    assert_eq!(calls_while_idle(&calls), 0, "the peer of a guest without room has gone");

    // The peer does not read.
    let stuck = connect(&mut guest, (2, 52));
    for _ in 0..16 {
        guest.send_data((2, 52), &[0; 16 << 10]);
    }
    assert_eq!(calls_while_idle(&calls), 0, "the peer does not read");

    // Half-closed, each way.
    let half = connect(&mut guest, (3, 52));
    half.shutdown(std::net::Shutdown::Write).unwrap();
    guest.find(op::SHUTDOWN);
    let other_half = connect(&mut guest, (4, 52));
    guest.shutdown((4, 52), shut::SEND);
    assert_eq!(calls_while_idle(&calls), 0, "half-closed");

    // Clients that say nothing are looked at a few times a second, until their time is over.
    let silent = UnixStream::connect(place.path()).unwrap();
    assert!(calls_while_idle(&calls) <= 3, "a silent client");
    drop((stuck, half, other_half, silent));
    guest.end();
}

#[test]
fn nobody_spins_when_the_guest_gives_no_buffers_or_breaks_the_rules() {
    let place = Place::new();
    let listener = place.listen(52);
    let (device, calls) = counted(place.vsock().build().unwrap());
    let mut guest = Guest::with_buffers(device, 2, 1024 + 44);
    let header = Header { buf_alloc: u32::MAX, ..guest.header((1, 52), op::REQUEST) };
    guest.send_raw(&header, &[]);
    guest.expect((1, 52), op::RESPONSE);
    let (mut host, _) = listener.accept().unwrap();
    let writes = thread::spawn(move || {
        let result = host.write_all(&vec![0; 4 << 20]);
        (host, result)
    });
    assert_eq!(calls_while_idle(&calls), 0, "no buffers");
    // An available index far ahead: the rings are broken, and the peers are let go.
    guest.driver.set_avail_idx(1, 0x8000);
    guest.driver.kick(1);
    guest.driver.wait_needs_reset();
    assert!(writes.join().unwrap().1.is_err());
    let client = UnixStream::connect(place.path()).unwrap();
    assert!(calls_while_idle(&calls) <= 3, "broken, and a client that says nothing");
    drop(client);
    guest.driver.start(u64::MAX);
    guest.begin(64);
    guest.is_alive();
    guest.end();
}
