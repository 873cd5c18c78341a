//! Network workloads: frames sent as fast as they are taken, and ICMP echoes, which make the host's own network
//! stack the other end of a round trip.

use core::{ptr, slice};

use crate::clock::{self, Patience};
use crate::mmio::Device;
use crate::params::Params;
use crate::queue::{Buffer, Queue};
use crate::{Work, Workload, fail, pool};

const KIND: u32 = 1;

/// Features: the host completes checksums, and cuts large TCP segments up where they leave it.
const CHECKSUM: u64 = 1 << 0;
const TSO4: u64 = 1 << 11;

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;

/// `struct virtio_net_hdr_v1`, with what this program never changes left out.
const HEADER: usize = 12;
const ETHERNET: usize = 14;
const IP: usize = 20;
const ICMP: usize = 8;
const TCP: usize = 20;
/// A frame that needs no cutting up.
const PLAIN: usize = 1514;

/// Addresses that the harness knows: it gives the TAP the host's, and tells it of the guest's.
const HOST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const GUEST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 2];
/// Nobody's: the host's stack drops what goes here at once.
const NO_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 3];
const HOST_IP: [u8; 4] = [10, 0, 0, 1];
const GUEST_IP: [u8; 4] = [10, 0, 0, 2];

/// A frame under construction, behind its virtio header.
struct Frame<'a>(&'a mut [u8]);

impl Frame<'_> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[HEADER + at..HEADER + at + bytes.len()].copy_from_slice(bytes);
    }

    /// Ethernet and IPv4, for a payload of this protocol.
    fn addressed(&mut self, to: [u8; 6], protocol: u8) {
        let length = (self.0.len() - HEADER - ETHERNET) as u16;
        self.put(0, &to);
        self.put(6, &GUEST_MAC);
        self.put(12, &[0x08, 0x00]);
        self.put(ETHERNET, &[0x45, 0]);
        self.put(ETHERNET + 2, &length.to_be_bytes());
        self.put(ETHERNET + 8, &[64, protocol]);
        self.put(ETHERNET + 12, &GUEST_IP);
        self.put(ETHERNET + 16, &HOST_IP);
        let sum = checksum(&self.0[HEADER + ETHERNET..HEADER + ETHERNET + IP]);
        self.put(ETHERNET + 10, &sum.to_be_bytes());
    }

    /// An ICMP echo request.
    fn echo_request(&mut self) {
        const PROTOCOL: u8 = 1;
        self.addressed(HOST_MAC, PROTOCOL);
        self.put(ETHERNET + IP, &[8, 0]);
        let sum = checksum(&self.0[HEADER + ETHERNET + IP..]);
        self.put(ETHERNET + IP + 2, &sum.to_be_bytes());
    }

    /// A TCP segment to nobody, for the host to cut up where it is larger than a frame may be.
    fn segment(&mut self) {
        const PROTOCOL: u8 = 6;
        const PUSH_ACK: u8 = 0x18;
        const NEEDS_CHECKSUM: u8 = 1;
        const GSO_TCPV4: u8 = 1;
        self.addressed(NO_MAC, PROTOCOL);
        self.put(ETHERNET + IP, &[0x30, 0x39, 0x00, 0x09]);
        self.put(ETHERNET + IP + 12, &[0x50, PUSH_ACK, 0xff, 0xff]);
        if self.0.len() > HEADER + PLAIN {
            let (headers, size) = ((ETHERNET + IP + TCP) as u16, (PLAIN - ETHERNET - IP - TCP) as u16);
            self.0[..2].copy_from_slice(&[NEEDS_CHECKSUM, GSO_TCPV4]);
            self.0[2..4].copy_from_slice(&headers.to_le_bytes());
            self.0[4..6].copy_from_slice(&size.to_le_bytes());
            self.0[6..8].copy_from_slice(&((ETHERNET + IP) as u16).to_le_bytes());
            self.0[8..10].copy_from_slice(&16_u16.to_le_bytes());
        }
    }
}

/// The Internet checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// One buffer with a frame for each of the first `count` descriptors.
fn frames(queue: &Queue, count: u16, size: usize, make: impl Fn(&mut Frame)) {
    for index in 0..count {
        let length = HEADER + size;
        let start = pool::pages(length as u64);
        // SAFETY: fresh memory of this length.
        make(&mut Frame(unsafe { slice::from_raw_parts_mut(start, length) }));
        queue.chain(index, &[Buffer::Read(start, length as u32)]);
    }
}

/// Sends frames.
pub struct Send {
    device: Device,
    queue: Queue,
    size: usize,
    depth: u16,
}

impl Send {
    pub fn new(params: &Params) -> Self {
        let size = params.number("size", PLAIN as u64) as usize;
        let device = Device::open(params, KIND, if size > PLAIN { CHECKSUM | TSO4 } else { 0 });
        if size > PLAIN && device.features & TSO4 == 0 {
            fail("the device does not take large segments");
        }
        device.queue(RECEIVE, 256);
        let queue = device.queue(TRANSMIT, 256);
        let depth = (params.number("depth", 256) as u16).min(queue.size());
        frames(&queue, depth, size, |frame| frame.segment());
        device.start();
        Self { device, queue, size, depth }
    }
}

impl Workload for Send {
    fn run(&mut self, until: u64) -> Work {
        let mut work = Work::default();
        (0..self.depth).for_each(|head| self.queue.put(head));
        self.queue.show();
        let (mut outstanding, mut patience) = (self.depth, Patience::new());
        while outstanding > 0 {
            let Some(mut done) = self.queue.take() else {
                patience.nothing();
                continue;
            };
            patience.something();
            self.device.acknowledge();
            let more = clock::now() < until;
            loop {
                work.operations += 1;
                work.bytes += self.size as u64;
                if more {
                    self.queue.put(done.0);
                } else {
                    outstanding -= 1;
                }
                match self.queue.take() {
                    Some(next) => done = next,
                    None => break,
                }
            }
            self.queue.show();
        }
        work
    }

    fn kicks(&self) -> u64 {
        self.queue.kicks
    }
}

/// Sends echo requests and waits for the replies: so many under way at a time.
pub struct Echo {
    device: Device,
    receive: Queue,
    transmit: Queue,
    buffers: *mut u8,
    size: usize,
    depth: u16,
}

impl Echo {
    /// Of each receive buffer.
    const BUFFER: usize = 4096;

    pub fn new(params: &Params) -> Self {
        let device = Device::open(params, KIND, 0);
        let mut receive = device.queue(RECEIVE, 256);
        let transmit = device.queue(TRANSMIT, 256);
        let size = (params.number("size", 98) as usize).clamp(ETHERNET + IP + ICMP, PLAIN);
        let depth = (params.number("depth", 1) as u16).min(transmit.size());
        frames(&transmit, depth, size, |frame| frame.echo_request());
        let buffers = pool::pages(Self::BUFFER as u64 * u64::from(receive.size()));
        for index in 0..receive.size() {
            // SAFETY: within the memory just given out.
            let buffer = unsafe { buffers.add(Self::BUFFER * usize::from(index)) };
            receive.chain(index, &[Buffer::Write(buffer, Self::BUFFER as u32)]);
            receive.put(index);
        }
        device.start();
        receive.show();
        Self { device, receive, transmit, buffers, size, depth }
    }

    /// Whether a received frame is a reply, and not the chatter of the host's stack.
    fn is_reply(&self, index: u16, length: u32) -> bool {
        // SAFETY: the queue has as many buffers as entries, and the device is done with this one.
        let frame =
            unsafe { self.buffers.add(Self::BUFFER * usize::from(index % self.receive.size()) + HEADER) };
        // SAFETY: all offsets lie within the buffer.
        let byte = |at| unsafe { ptr::read_volatile(frame.add(at)) };
        let (kind, protocol, icmp) = ((byte(12), byte(13)), byte(ETHERNET + 9), byte(ETHERNET + IP));
        length as usize == HEADER + self.size && kind == (0x08, 0x00) && protocol == 1 && icmp == 0
    }
}

impl Workload for Echo {
    fn run(&mut self, until: u64) -> Work {
        let mut work = Work::default();
        (0..self.depth).for_each(|head| self.transmit.put(head));
        self.transmit.show();
        let (mut outstanding, mut patience) = (self.depth, Patience::new());
        // Requests to be sent, and buffers they can be sent from: a reply may come before its request's buffer.
        let (mut due, mut free, mut spare) = (0_u16, 0_usize, [0_u16; 256]);
        while outstanding > 0 {
            let mut received = false;
            while let Some((head, length)) = self.receive.take() {
                if !received {
                    received = true;
                    self.device.acknowledge();
                }
                if self.is_reply(head, length) {
                    work.operations += 1;
                    work.bytes += self.size as u64;
                    due += 1;
                }
                self.receive.put(head);
            }
            if received {
                patience.something();
                self.receive.show();
                if clock::now() >= until {
                    outstanding -= due;
                    due = 0;
                }
            } else {
                patience.nothing();
            }
            while let Some((head, _)) = self.transmit.take() {
                spare[free % spare.len()] = head;
                free += 1;
            }
            while due > 0 && free > 0 {
                free -= 1;
                due -= 1;
                self.transmit.put(spare[free]);
            }
            self.transmit.show();
        }
        // The buffers of the last requests, so that the next run finds them free.
        while free < usize::from(self.depth) {
            match self.transmit.take() {
                Some(_) => free += 1,
                None => patience.nothing(),
            }
        }
        work
    }

    fn kicks(&self) -> u64 {
        self.receive.kicks + self.transmit.kicks
    }
}
