//! Socket workloads: one stream to a host port; bytes there, bytes back, or one byte to and fro.

use core::{mem, ptr};

use crate::clock::{self, Patience};
use crate::mmio::Device;
use crate::params::Params;
use crate::queue::{Buffer, Queue};
use crate::{Work, Workload, fail, pool};

const KIND: u32 = 19;
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const EVENT: u32 = 2;

const HOST: u64 = 2;
const OUR_PORT: u32 = 1024;
const STREAM: u16 = 1;
/// What Linux allows a peer to send ahead.
const CREDIT: u32 = 256 << 10;

/// Operations of a packet.
mod operation {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const DATA: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// `struct virtio_vsock_hdr`.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Header {
    from: u64,
    to: u64,
    from_port: u32,
    to_port: u32,
    length: u32,
    kind: u16,
    operation: u16,
    flags: u32,
    credit: u32,
    consumed: u32,
}

const HEADER: u32 = size_of::<Header>() as u32;

/// A connected stream.
struct Stream {
    device: Device,
    receive: Queue,
    transmit: Queue,
    buffers: *mut u8,
    buffer: u32,
    /// One page with a header and one chunk of data for each pair of descriptors.
    headers: *mut u8,
    chunk: u32,
    free: u16,
    spare: [u16; Self::SLOTS as usize],
    cid: u64,
    port: u32,
    connected: bool,
    /// A credit update has come since this was last cleared.
    answered: bool,
    sent: u32,
    peer_credit: u32,
    peer_consumed: u32,
    received: u32,
    told: u32,
}

impl Stream {
    /// Packets under way to the host.
    const SLOTS: u16 = 64;

    fn connect(params: &Params, port: u32) -> Self {
        let device = Device::open(params, KIND, 0);
        let mut receive = device.queue(RECEIVE, 256);
        let transmit = device.queue(TRANSMIT, 256);
        device.queue(EVENT, 256);
        let buffer = params.number("buffer", 4096) as u32;
        let chunk = params.number("size", 65536) as u32;
        let buffers = pool::pages(u64::from(buffer) * u64::from(receive.size()));
        for index in 0..receive.size() {
            // SAFETY: within the memory just given out.
            let start = unsafe { buffers.add(buffer as usize * usize::from(index)) };
            receive.chain(index, &[Buffer::Write(start, buffer)]);
            receive.put(index);
        }
        let headers = pool::pages(u64::from(Self::SLOTS) * u64::from(HEADER));
        let cid = device.config(0);
        device.start();
        receive.show();
        let mut stream = Self {
            device,
            receive,
            transmit,
            buffers,
            buffer,
            headers,
            chunk,
            free: Self::SLOTS,
            spare: core::array::from_fn(|index| index as u16),
            cid,
            port: params.number("port", u64::from(port)) as u32,
            connected: false,
            answered: false,
            sent: 0,
            peer_credit: 0,
            peer_consumed: 0,
            received: 0,
            told: 0,
        };
        for slot in 0..Self::SLOTS {
            let data = pool::pages(u64::from(chunk));
            stream.transmit.chain(2 * slot, &[stream.header_of(slot), Buffer::Read(data, chunk)]);
        }
        stream.send(operation::REQUEST, 0);
        stream.wait_for(|stream| stream.connected);
        stream
    }

    fn header_of(&self, slot: u16) -> Buffer {
        // SAFETY: there are as many headers as slots.
        Buffer::Read(unsafe { self.headers.add(usize::from(slot) * HEADER as usize) }, HEADER)
    }

    /// Sends a packet with so much data (none, a byte, or a chunk); there must be a free slot.
    fn send(&mut self, operation: u16, length: u32) {
        self.free -= 1;
        let slot = self.spare[usize::from(self.free)];
        let header = Header {
            from: self.cid,
            to: HOST,
            from_port: OUR_PORT,
            to_port: self.port,
            length,
            kind: STREAM,
            operation,
            flags: 0,
            credit: CREDIT,
            consumed: self.received,
        };
        let at = self.header_of(slot);
        if let Buffer::Read(start, _) = at {
            // SAFETY: the slot's header, which the device does not use now.
            unsafe { ptr::write_unaligned(start.cast_mut().cast(), header) };
        }
        self.told = self.received;
        self.sent = self.sent.wrapping_add(length);
        if length == 0 {
            // Without data the packet is its header: another chain, at the other end of the table.
            let head = 2 * Self::SLOTS + slot;
            self.transmit.chain(head, &[at]);
            self.transmit.put(head);
        } else {
            self.transmit.put(2 * slot);
        }
        self.transmit.show();
    }

    /// How much the peer can take.
    fn credit(&self) -> u32 {
        self.peer_credit.wrapping_sub(self.sent.wrapping_sub(self.peer_consumed))
    }

    /// Looks once at both rings; true when there was something.
    fn poll(&mut self) -> bool {
        let before = (self.free, self.receive.filled());
        while let Some((head, _)) = self.transmit.take() {
            let slot = if head < 2 * Self::SLOTS { head / 2 } else { head - 2 * Self::SLOTS };
            self.spare[usize::from(self.free)] = slot;
            self.free += 1;
        }
        while let Some((head, length)) = self.receive.take() {
            self.device.acknowledge();
            self.packet(head, length);
            self.receive.put(head);
        }
        self.receive.show();
        if self.received.wrapping_sub(self.told) >= CREDIT / 2 && self.free > 0 {
            self.send(operation::CREDIT_UPDATE, 0);
        }
        before != (self.free, self.receive.filled())
    }

    fn packet(&mut self, head: u16, length: u32) {
        let at = self.buffer as usize * usize::from(head % self.receive.size());
        // SAFETY: the queue has as many buffers as entries, and the device is done with this one.
        let header: Header = unsafe { ptr::read_unaligned(self.buffers.add(at).cast()) };
        let (to_port, carried) = (header.to_port, header.length);
        if length < HEADER || length - HEADER < carried || to_port != OUR_PORT {
            fail("a packet is not what it says");
        }
        self.peer_credit = header.credit;
        self.peer_consumed = header.consumed;
        match header.operation {
            operation::RESPONSE => self.connected = true,
            operation::DATA => self.received = self.received.wrapping_add(carried),
            operation::CREDIT_UPDATE => self.answered = true,
            operation::CREDIT_REQUEST => self.told = self.received.wrapping_sub(CREDIT / 2),
            _ => fail("the host has closed the stream"),
        }
    }

    fn wait_for(&mut self, mut what: impl FnMut(&mut Self) -> bool) {
        let mut patience = Patience::new();
        while !what(self) {
            if self.poll() {
                patience.something();
            } else {
                patience.nothing();
            }
        }
    }

    /// Waits until the host has all that was sent, asking for its counter as often as needed.
    fn deliver(&mut self) {
        while self.sent != self.peer_consumed {
            self.answered = false;
            self.wait_for(|stream| stream.free > 1);
            self.send(operation::CREDIT_REQUEST, 0);
            self.wait_for(|stream| stream.answered);
        }
        self.wait_for(|stream| stream.free == Self::SLOTS);
    }

    fn kicks(&self) -> u64 {
        self.receive.kicks + self.transmit.kicks
    }
}

/// Bytes to the host.
pub struct Send(Stream);

impl Send {
    pub fn new(params: &Params) -> Self {
        Self(Stream::connect(params, 1000))
    }
}

impl Workload for Send {
    fn run(&mut self, until: u64) -> Work {
        let (mut work, chunk) = (Work::default(), self.0.chunk);
        while clock::now() < until {
            // Room in the ring and in the peer, and one slot kept for what the protocol wants to say.
            self.0.wait_for(|stream| stream.free > 1 && stream.credit() >= chunk);
            self.0.send(operation::DATA, chunk);
            work.operations += 1;
            work.bytes += u64::from(chunk);
        }
        self.0.deliver();
        work
    }

    fn kicks(&self) -> u64 {
        self.0.kicks()
    }
}

/// Bytes from the host, which sends them as fast as they are taken.
pub struct Receive(Stream);

impl Receive {
    pub fn new(params: &Params) -> Self {
        Self(Stream::connect(params, 1001))
    }
}

impl Workload for Receive {
    fn run(&mut self, until: u64) -> Work {
        let (mut work, mut seen) = (Work::default(), self.0.received);
        while clock::now() < until {
            self.0.wait_for(|stream| stream.received != seen);
            work.operations += 1;
            let before = mem::replace(&mut seen, self.0.received);
            work.bytes += u64::from(seen.wrapping_sub(before));
        }
        work
    }

    fn kicks(&self) -> u64 {
        self.0.kicks()
    }
}

/// One byte there and back.
pub struct Echo(Stream);

impl Echo {
    pub fn new(params: &Params) -> Self {
        Self(Stream::connect(params, 1002))
    }
}

impl Workload for Echo {
    fn run(&mut self, until: u64) -> Work {
        let mut work = Work::default();
        while clock::now() < until {
            let before = self.0.received;
            self.0.send(operation::DATA, self.0.chunk);
            let all = before.wrapping_add(self.0.chunk);
            self.0.wait_for(|stream| stream.free > 1 && stream.received == all);
            work.operations += 1;
            work.bytes += u64::from(self.0.chunk);
        }
        work
    }

    fn kicks(&self) -> u64 {
        self.0.kicks()
    }
}
