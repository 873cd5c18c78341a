//! The guest's side: a driver that keeps the receive queue full, and connections over it with a window each.

use std::collections::{BTreeMap, VecDeque};

use super::CID;
use crate::testing::{BUFFERS, Driver, Seg};
use crate::virtio::Device;
use crate::vsock::packet::{HEADER_LEN, HOST_CID, Header, STREAM, op};
use crate::vsock::worker::{RX, TX};

/// Bytes of payload that a buffer of the receive queue holds.
pub const RX_PAYLOAD: u32 = 4096;
const RX_LEN: u32 = RX_PAYLOAD + HEADER_LEN as u32;
const TX_PAYLOAD: usize = 64 << 10;
const TX_LEN: u64 = (TX_PAYLOAD + HEADER_LEN) as u64;
/// Packets on their way at once.
const TX_SLOTS: u64 = 32;

/// What a guest lets the host send without being asked.
pub const WINDOW: u32 = 64 << 10;

/// Guest's port, host's port.
pub type Ports = (u32, u32);

pub struct Guest {
    pub driver: Driver,
    /// What arrived, in order.
    pub arrived: VecDeque<(Header, Vec<u8>)>,
    /// Answer credit automatically, as a guest does whose programs read at once.
    pub reads: bool,
    /// Give buffers back once they have been read.
    pub gives: bool,
    rx_len: u32,
    rx_slots: BTreeMap<u16, u64>,
    tx_free: Vec<u64>,
    tx_slots: BTreeMap<u16, u64>,
    received: BTreeMap<Ports, u32>,
    told: BTreeMap<Ports, u32>,
}

impl Guest {
    /// A guest whose driver is up and whose receive queue is full of buffers.
    pub fn new(device: Device) -> Self {
        Self::with_buffers(device, 256, RX_LEN)
    }

    pub fn with_buffers(device: Device, count: u16, len: u32) -> Self {
        let mut guest = Self {
            driver: Driver::started(device),
            arrived: VecDeque::new(),
            reads: true,
            gives: true,
            rx_len: len,
            rx_slots: BTreeMap::new(),
            tx_free: Vec::new(),
            tx_slots: BTreeMap::new(),
            received: BTreeMap::new(),
            told: BTreeMap::new(),
        };
        guest.begin(count);
        guest
    }

    /// Fills the receive queue of a driver that has just come up.
    pub fn begin(&mut self, buffers: u16) {
        self.rx_slots.clear();
        self.tx_slots.clear();
        self.tx_free = (0..TX_SLOTS).collect();
        self.arrived.clear();
        self.received.clear();
        self.told.clear();
        for slot in 0..u64::from(buffers) {
            self.give(slot);
        }
        self.driver.kick(RX);
    }

    /// Makes one more buffer available.
    pub fn give(&mut self, slot: u64) {
        let head = self.driver.offer(RX, &[Seg::writable(rx_at(slot), self.rx_len)]);
        self.rx_slots.insert(head, slot);
    }

    /// Sends a packet with these bytes behind the header, which is sent as it is.
    pub fn send_raw(&mut self, header: &Header, payload: &[u8]) {
        self.reclaim();
        let mut slot = self.tx_free.pop();
        if slot.is_none() {
            self.driver.until("a packet to be taken", |_| true);
            while slot.is_none() {
                self.poll();
                self.reclaim();
                slot = self.tx_free.pop();
            }
        }
        let slot = slot.unwrap();
        let at = tx_at(slot);
        self.driver.put(at, &header.bytes());
        self.driver.put(at + HEADER_LEN as u64, payload);
        // The header in a descriptor of its own, or in two with the payload: the device may not care.
        let (len, cut) = (HEADER_LEN as u32 + payload.len() as u32, 20 + (slot as u32 % 3) * 12);
        let head =
            self.driver.offer(TX, &[Seg::readable(at, cut), Seg::readable(at + u64::from(cut), len - cut)]);
        self.tx_slots.insert(head, slot);
        self.driver.kick(TX);
    }

    fn reclaim(&mut self) {
        while let Some((head, _)) = self.driver.used(TX) {
            self.tx_free.push(self.tx_slots.remove(&head).unwrap());
        }
    }

    /// Waits until everything that was sent has been taken.
    pub fn drain(&mut self) {
        let start = std::time::Instant::now();
        while !self.tx_slots.is_empty() {
            self.reclaim();
            assert!(start.elapsed() < super::LONG, "the device takes no packets");
            std::thread::yield_now();
        }
    }

    pub fn header(&self, ports: Ports, op: u16) -> Header {
        Header {
            src_cid: CID.into(),
            dst_cid: HOST_CID,
            src_port: ports.0,
            dst_port: ports.1,
            kind: STREAM,
            op,
            buf_alloc: WINDOW,
            fwd_cnt: self.told.get(&ports).copied().unwrap_or(0),
            ..Header::default()
        }
    }

    pub fn send(&mut self, ports: Ports, op: u16) {
        let header = self.header(ports, op);
        self.send_raw(&header, &[]);
    }

    pub fn shutdown(&mut self, ports: Ports, flags: u32) {
        let header = Header { flags, ..self.header(ports, op::SHUTDOWN) };
        self.send_raw(&header, &[]);
    }

    pub fn send_data(&mut self, ports: Ports, payload: &[u8]) {
        let header = Header { len: payload.len() as u32, ..self.header(ports, op::RW) };
        self.send_raw(&header, payload);
    }

    /// Takes what the device has sent, and gives the buffers back.
    pub fn poll(&mut self) {
        let mut any = false;
        while let Some((head, written)) = self.driver.used(RX) {
            let slot = self.rx_slots.remove(&head).unwrap();
            if written > 0 {
                let bytes = self.driver.get(rx_at(slot), written as usize);
                let header = Header::parse(bytes[..HEADER_LEN].try_into().unwrap());
                let payload = bytes[HEADER_LEN..].to_vec();
                assert_eq!(header.len as usize, payload.len());
                assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, CID.into()));
                self.arrived.push_back((header, payload));
            }
            if self.gives {
                self.give(slot);
                any = true;
            }
        }
        if any {
            self.driver.kick(RX);
        }
        if self.reads {
            self.acknowledge();
        }
    }

    fn acknowledge(&mut self) {
        let ports_of = |header: &Header| (header.dst_port, header.src_port);
        let mut due = Vec::new();
        for (header, payload) in &mut self.arrived {
            if header.op == op::RW && header.flags == 0 {
                // Counted: the flags of data are 0 on the wire.
                header.flags = u32::MAX;
                let received = self.received.entry(ports_of(header)).or_default();
                *received = received.wrapping_add(payload.len() as u32);
                let told = self.told.get(&ports_of(header)).copied().unwrap_or(0);
                if received.wrapping_sub(told) >= WINDOW / 2 {
                    self.told.insert(ports_of(header), *received);
                    due.push(ports_of(header));
                }
            }
        }
        for ports in due {
            self.send(ports, op::CREDIT_UPDATE);
        }
    }

    /// The next packet.
    pub fn next(&mut self) -> (Header, Vec<u8>) {
        let start = std::time::Instant::now();
        loop {
            if let Some(packet) = self.arrived.pop_front() {
                return packet;
            }
            assert!(start.elapsed() < super::LONG, "no packet comes");
            self.poll();
            std::thread::yield_now();
        }
    }

    /// The next packet, which is of this connection and kind. How much credit there is comes at any time.
    pub fn expect(&mut self, ports: Ports, op: u16) -> Header {
        let mut header = self.next().0;
        while header.op == op::CREDIT_UPDATE && op != op::CREDIT_UPDATE {
            header = self.next().0;
        }
        assert_eq!((header.dst_port, header.src_port, header.op), (ports.0, ports.1, op), "{header:?}");
        header
    }

    /// The next packet of this kind; others are left out.
    pub fn find(&mut self, op: u16) -> (Header, Vec<u8>) {
        loop {
            let (header, payload) = self.next();
            if header.op == op {
                return (header, payload);
            }
        }
    }

    /// Connects to the host, where somebody listens.
    pub fn connect(&mut self, ports: Ports) -> Header {
        self.send(ports, op::REQUEST);
        self.expect(ports, op::RESPONSE)
    }

    /// All payload up to the next packet that has none; that one too.
    pub fn read_stream(&mut self) -> (Vec<u8>, Header) {
        let mut bytes = Vec::new();
        loop {
            let (header, payload) = self.next();
            match header.op {
                op::RW => bytes.extend(payload),
                op::CREDIT_REQUEST | op::CREDIT_UPDATE => {}
                _ => return (bytes, header),
            }
        }
    }

    /// Shows that the device still works: a packet of no connection is answered.
    pub fn is_alive(&mut self) {
        let ports = (0xdead, 0xbeef);
        self.send(ports, op::RW);
        loop {
            let (header, _) = self.next();
            if (header.dst_port, header.src_port, header.op) == (ports.0, ports.1, op::RST) {
                return;
            }
        }
    }

    pub fn end(self) {
        self.driver.bench.end();
    }
}

fn rx_at(slot: u64) -> u64 {
    BUFFERS + slot * 0x2000
}

fn tx_at(slot: u64) -> u64 {
    BUFFERS + 0x40_0000 + slot * TX_LEN.next_multiple_of(0x1000)
}
