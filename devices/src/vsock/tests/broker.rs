//! Clients on the host that do not behave, and programs that do not accept.

use std::io::{Read, Write};
use std::thread;

use super::guest::Guest;
use super::*;
use crate::vsock::packet::op;
use crate::vsock::table::FIRST_PORT;

#[test]
fn lines_that_are_none_are_refused() {
    let place = Place::new();
    let mut guest = Guest::new(place.vsock().build().unwrap());
    let lines: [&[u8]; 16] = [
        b"\n",
        b"CONNECT\n",
        b"CONNECT \n",
        b"CONNECT x\n",
        b"CONNECT -1\n",
        b"CONNECT +1\n",
        b"CONNECT 4294967295\n",
        b"CONNECT 4294967296\n",
        b"CONNECT 99999999999999999999\n",
        b"CONNECT 00000000000000000001\n",
        b"CONNECT 1 2\n",
        b"CONNECT  1\n",
        b"DISCONNECT 1\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT \xff\xfe\n",
        &[b'A'; 5000],
    ];
    for line in lines {
        let mut host = place.connect(line);
        let mut all = Vec::new();
        let end = host.read_to_end(&mut all);
        assert!(all.is_empty() && end.is_ok_or_reset(), "{}", line.escape_ascii());
    }
    guest.is_alive();
    assert!(guest.arrived.is_empty(), "the guest hears nothing of them");
    guest.end();
}

trait OkOrReset {
    fn is_ok_or_reset(&self) -> bool;
}

impl OkOrReset for io::Result<usize> {
    fn is_ok_or_reset(&self) -> bool {
        // Bytes behind the line that nobody read make it a reset.
        self.as_ref().is_ok_and(|count| *count == 0)
            || self.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    }
}

#[test]
fn lines_are_taken_as_other_monitors_take_them() {
    let place = Place::new();
    let mut guest = Guest::new(place.vsock().build().unwrap());
    let lines: [(&[u8], u32); 5] = [
        (b"CONNECT 0\n", 0),
        (b"connect 52\n", 52),
        (b"CONNECT 52\r\n", 52),
        (b"CONNECT 0052\n", 52),
        (b"CONNECT 4294967294\n", 0xffff_fffe),
    ];
    for (n, (line, port)) in (0..).zip(lines) {
        let mut host = place.connect(line);
        guest.expect((port, FIRST_PORT + n), op::REQUEST);
        guest.send((port, FIRST_PORT + n), op::RST);
        assert_eq!(answer(&mut host), "");
    }
    guest.end();
}

#[test]
fn slow_clients_hold_nobody_up_and_are_dropped() {
    let place = Place::new();
    let timeouts = Timeouts { line: Duration::from_millis(600), ..Timeouts::default() };
    let mut guest = Guest::new(place.vsock().timeouts(timeouts).build().unwrap());
    let mut slow: Vec<_> = (0..300).map(|_| place.connect(b"CONNECT 1")).collect();
    let mut silent: Vec<_> = (0..300).map(|_| place.connect(b"")).collect();
    let mut host = place.connect(b"CONNECT 7\n");
    guest.expect((7, FIRST_PORT), op::REQUEST);
    guest.send((7, FIRST_PORT), op::RESPONSE);
    assert_eq!(answer(&mut host), format!("OK {FIRST_PORT}\n"));
    for client in slow.iter_mut().chain(&mut silent) {
        assert_eq!(answer(client), "");
    }
    guest.is_alive();
    guest.end();
}

#[test]
fn more_silent_clients_than_are_waited_for() {
    let place = Place::new();
    let timeouts = Timeouts { line: Duration::from_millis(300), ..Timeouts::default() };
    let mut guest = Guest::new(place.vsock().timeouts(timeouts).build().unwrap());
    let silent: Vec<_> = (0..1500).map(|_| place.connect(b"")).collect();
    // It waits in the socket's queue until those before it have had their time.
    let mut host = place.connect(b"CONNECT 7\n");
    guest.expect((7, FIRST_PORT), op::REQUEST);
    guest.send((7, FIRST_PORT), op::RESPONSE);
    assert_eq!(answer(&mut host), format!("OK {FIRST_PORT}\n"));
    drop(silent);
    guest.end();
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let place = Place::new();
    let mut guest = Guest::new(place.vsock().build().unwrap());
    for round in 0..500 {
        let mut host = UnixStream::connect(place.path()).unwrap();
        let line: &[u8] = b"CONNECT 7\n";
        // It may be refused already, or be gone before it is.
        let _: io::Result<()> = host.write_all(&line[..round % line.len()]);
    }
    let mut host = place.connect(b"CONNECT 8\n");
    guest.expect((8, FIRST_PORT), op::REQUEST);
    guest.send((8, FIRST_PORT), op::RST);
    assert_eq!(answer(&mut host), "");
    guest.end();
}

/// Fills the queue of who listens at `port`. `None` where it is longer than this process has descriptors.
fn fill_queue(place: &Place, port: u32) -> Option<Vec<UnixStream>> {
    let mut fillers = Vec::new();
    loop {
        match crate::vsock::dial::dial(&place.folder.as_path().join(format!("v.sock_{port}"))) {
            Ok(stream) => fillers.push(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(fillers),
            Err(error) => {
                println!("SKIPPED the queue of a listening socket cannot be filled: {error}");
                return None;
            }
        }
    }
}

#[test]
fn a_program_that_accepts_nothing_holds_nobody_up() {
    let place = Place::new();
    let (full, listener) = (place.listen(1), place.listen(2));
    let Some(fillers) = fill_queue(&place, 1) else { return };
    let timeouts = Timeouts { dial: Duration::from_millis(400), ..Timeouts::default() };
    let mut guest = Guest::new(place.vsock().timeouts(timeouts).build().unwrap());
    guest.send((1, 1), op::REQUEST);
    guest.connect((2, 2));
    drop(listener.accept().unwrap());
    guest.find(op::SHUTDOWN);
    guest.send((2, 2), op::RST);
    // In time, the guest hears that nobody took it.
    guest.expect((1, 1), op::RST);
    drop((fillers, full));
    guest.end();
}

#[test]
fn a_program_that_accepts_late_is_reached() {
    let place = Place::new();
    let full = place.listen(1);
    let Some(fillers) = fill_queue(&place, 1) else { return };
    let mut guest = Guest::new(place.vsock().build().unwrap());
    guest.send((3, 1), op::REQUEST);
    // It gives up, and begins anew with the same ports.
    guest.send((3, 1), op::RST);
    guest.send((3, 1), op::REQUEST);
    guest.drain();
    fillers.iter().for_each(|_| drop(full.accept().unwrap()));
    guest.expect((3, 1), op::RESPONSE);
    guest.send_data((3, 1), b"hello");
    // The first one is nobody's, and the second one is the connection.
    let (mut first, mut second) = (full.accept().unwrap().0, full.accept().unwrap().0);
    let mut bytes = [0; 5];
    assert_eq!(first.read(&mut bytes).unwrap(), 0);
    second.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    guest.end();
}

#[test]
fn a_guest_orders_no_more_than_it_may_have() {
    let place = Place::new();
    let full = place.listen(1);
    let Some(fillers) = fill_queue(&place, 1) else { return };
    let timeouts = Timeouts { dial: Duration::from_millis(400), ..Timeouts::default() };
    let mut guest = Guest::new(place.vsock().connections(2).timeouts(timeouts).build().unwrap());
    for port in [1, 2] {
        guest.send((port, 1), op::REQUEST);
        guest.send((port, 1), op::RST);
    }
    // It has none, but two are being dialled.
    guest.send((3, 1), op::REQUEST);
    guest.expect((3, 1), op::RST);
    // There is place again once nobody was reached.
    let listener = place.listen(2);
    wait_for("place", || {
        guest.send((3, 2), op::REQUEST);
        guest.next().0.op == op::RESPONSE
    });
    drop(listener);
    drop((fillers, full));
    guest.end();
}

#[test]
fn what_waits_to_be_dialled_is_forgotten_with_the_device() {
    let place = Place::new();
    let (full, listener) = (place.listen(1), place.listen(2));
    let Some(fillers) = fill_queue(&place, 1) else { return };
    let timeouts = Timeouts { dial: LONG, ..Timeouts::default() };
    let mut guest = Guest::new(place.vsock().timeouts(timeouts).build().unwrap());
    guest.send((1, 1), op::REQUEST);
    guest.connect((2, 2));
    // The broker goes on when the rings break; what was ordered before does not.
    guest.driver.set_avail_idx(1, 0x8000);
    guest.driver.kick(1);
    guest.driver.wait_needs_reset();
    let mut host = listener.accept().unwrap().0;
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
    let silent = place.connect(b"");
    thread::sleep(Duration::from_millis(50));
    fillers.iter().for_each(|_| drop(full.accept().unwrap()));
    thread::sleep(Duration::from_millis(50));
    full.set_nonblocking(true).unwrap();
    assert_eq!(full.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(silent);
    guest.end();
}
