use super::*;
use crate::virtio::RegisterPages;
use proptest::prelude::*;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl Interrupt for Counter {
    fn signal(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

struct Broken;

impl Interrupt for Broken {
    fn signal(&self) -> io::Result<()> {
        Err(io::Error::other("no line"))
    }
}

fn page() -> RegisterPage {
    RegisterPages::new(1).unwrap().page(0).unwrap()
}

fn with<I: Interrupt>(interrupt: I) -> SerialPort<I> {
    SerialPort::new(interrupt, page())
}

const DATA: u8 = 0;
const IER: u8 = 1;
const MCR: u8 = 4;
const LSR: u8 = 5;

#[test]
fn what_the_guest_sends_waits_for_the_owner() {
    let mut port = with(Counter::default());
    for byte in b"hello" {
        port.write(DATA, *byte);
    }
    assert_eq!(port.output_len(), 5);
    assert_eq!(port.take_output(Vec::with_capacity(64)), b"hello");
    assert_eq!(port.output_len(), 0);
    port.write(DATA, b'!');
    assert_eq!(port.take_output(vec![1, 2, 3]), b"!", "what was handed in does not show up");
    assert_eq!(port.take_output(Vec::new()), b"", "and is not sent later");
}

#[test]
fn input_stops_at_the_fifo_and_goes_on_when_the_guest_reads() {
    let mut port = with(Counter::default());
    assert_eq!(port.receive(&[b'x'; 100]), 64);
    assert_eq!(port.receive(b"y"), 0);
    assert_eq!(port.read(LSR) & 1, 1, "data ready");
    assert_eq!(port.read(DATA), b'x');
    assert_eq!(port.receive(b"yz"), 1);
    let rest: Vec<u8> = (0..64).map(|_| port.read(DATA)).collect();
    assert_eq!(rest.iter().filter(|byte| **byte == b'x').count(), 63);
    assert_eq!(rest.last(), Some(&b'y'));
    assert_eq!(port.read(LSR) & 1, 0, "no more data");
}

#[test]
fn the_line_rises_for_input_once_the_guest_enables_it() {
    let line = Counter::default();
    let mut port = with(line.clone());
    port.receive(b"a");
    assert_eq!(line.0.load(Ordering::Relaxed), 0);
    port.write(IER, 1);
    assert_eq!(line.0.load(Ordering::Relaxed), 1, "what had arrived before is not forgotten");
}

#[test]
fn loopback_refuses_input() {
    let mut port = with(Counter::default());
    port.write(MCR, 0x10);
    assert_eq!(port.receive(b"a"), 0);
    port.write(MCR, 0);
    assert_eq!(port.receive(b"a"), 1);
}

#[test]
fn a_broken_line_loses_no_byte() {
    let mut port = with(Broken);
    port.write(IER, 3);
    port.write(DATA, b'a');
    assert_eq!(port.receive(b"bc"), 2);
    assert_eq!(port.take_output(Vec::new()), b"a");
    assert_eq!([port.read(DATA), port.read(DATA)], *b"bc");
}

#[test]
fn the_page_says_what_the_registers_do() {
    let page = page();
    let mut port = SerialPort::new(Counter::default(), page.clone());
    let mut agree = |what: &str, access: &mut dyn FnMut(&mut SerialPort<Counter>)| {
        access(&mut port);
        let mut seen = [0; 4];
        page.read(0, &mut seen);
        assert_eq!(seen, [port.read(5), port.read(6), port.read(7), 0], "{what}");
        seen
    };
    assert_eq!(agree("reset", &mut |_| {})[0], 0x60, "there is room");
    assert_eq!(agree("input", &mut |port| assert_eq!(port.receive(b"a"), 1))[0], 0x61);
    assert_eq!(agree("input read", &mut |port| assert_eq!(port.read(DATA), b'a'))[0], 0x60);
    assert_eq!(agree("scratch", &mut |port| port.write(7, 0xa5))[2], 0xa5);
    assert_eq!(agree("loopback", &mut |port| port.write(MCR, 0x1a))[1] & 0xf0, 0x90);
    assert_eq!(agree("a byte in loopback", &mut |port| port.write(DATA, b'b'))[0], 0x61);
}

/// Looks at the page when the line rises, as a driver on another CPU might.
struct Looks(RegisterPage, Arc<AtomicUsize>);

impl Interrupt for Looks {
    fn signal(&self) -> io::Result<()> {
        let mut status = [0];
        self.0.read(0, &mut status);
        self.1.store(status[0].into(), Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn the_page_is_written_before_the_line_rises() {
    let (page, seen) = (page(), Arc::default());
    let mut port = SerialPort::new(Looks(page.clone(), Arc::clone(&seen)), page);
    port.write(IER, 1);
    port.receive(b"a");
    assert_eq!(seen.load(Ordering::Relaxed), 0x61, "data ready");
}

#[test]
fn bytes_may_come_late_where_nothing_follows_from_them() {
    let mut port = with(Counter::default());
    assert!(port.may_lag());
    for (register, value) in [(IER, 2), (MCR, 0x10), (3, 0x80)] {
        port.write(register, value);
        assert!(!port.may_lag(), "register {register}");
        port.write(register, 0);
        assert!(port.may_lag(), "register {register}");
    }
    port.write(IER, 1);
    assert!(port.may_lag(), "an interrupt for what is received");
}

proptest! {
    /// Any sequence of accesses: no panic, and never more output than accesses.
    #[test]
    fn any_register_sequence(accesses in prop::collection::vec((any::<bool>(), any::<u8>(), any::<u8>()), 0..400)) {
        let mut port = with(Counter::default());
        for (is_write, offset, value) in &accesses {
            if *is_write { port.write(*offset, *value) } else { port.read(*offset); }
            prop_assert!(port.receive(&[*value]) <= 1);
        }
        prop_assert!(port.output_len() <= accesses.len());
    }
}
