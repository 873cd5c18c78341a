//! A driver for one device, and the bench on which the device sits: memory, registers, threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};

use crate::Interrupt;
#[cfg(test)]
use crate::virtio::Job;
use crate::virtio::mmio::{feature, status};
use crate::virtio::{Device, Memory, RegisterPages, Transport, Worker, mmio};

/// Where the rings of queue *n* begin: one page each for descriptors, available and used ring, 4 pages apart.
const RINGS: u64 = 0x1_0000;
const RINGS_APART: u64 = 0x1_0000;
/// Where buffers may be put.
pub const BUFFERS: u64 = 0x40_0000;
/// Longer than any device here takes for anything.
const LONG: Duration = Duration::from_secs(20);

/// Guest memory of 16 MiB from 0 on.
pub fn memory() -> Arc<Memory> {
    Arc::new(Memory::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap())
}

/// Counts the edges.
#[derive(Clone, Default)]
struct Edges(Arc<AtomicU64>);

impl Interrupt for Edges {
    fn signal(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// One descriptor to be: guest address, length, whether the device may write it.
#[derive(Clone, Copy, Debug)]
pub struct Seg {
    pub addr: u64,
    pub len: u32,
    pub writable: bool,
}

impl Seg {
    pub fn readable(addr: u64, len: u32) -> Self {
        Self { addr, len, writable: false }
    }

    pub fn writable(addr: u64, len: u32) -> Self {
        Self { addr, len, writable: true }
    }
}

/// Where a queue's rings are, and how far the driver has come.
#[derive(Clone, Debug)]
pub struct RingLayout {
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    next_desc: u16,
    avail_idx: u16,
    used_idx: u16,
}

/// A device on its own: transport, running workers, memory.
pub struct Bench {
    pub memory: Arc<Memory>,
    pub transport: Transport,
    edges: Edges,
    workers: Vec<JoinHandle<()>>,
}

impl Bench {
    pub fn new(device: Device) -> Self {
        let memory = memory();
        let page = RegisterPages::new(1).unwrap().page(0).unwrap();
        let edges = Edges::default();
        let (transport, workers) =
            Transport::new(device, page, Box::new(edges.clone()), Arc::clone(&memory)).unwrap();
        let workers = workers.into_iter().map(start).collect();
        Self { memory, transport, edges, workers }
    }

    pub fn edges(&self) -> u64 {
        self.edges.0.load(Ordering::SeqCst)
    }

    /// Ends the workers, and fails where one panicked.
    pub fn end(self) {
        drop(self.transport);
        for worker in self.workers {
            worker.join().expect("a worker panicked");
        }
    }
}

/// A worker on a thread of its own, as fuzz targets want it.
#[cfg(not(test))]
fn start(mut worker: Worker) -> JoinHandle<()> {
    thread::spawn(move || {
        worker.prepare();
        worker.run().unwrap();
    })
}

/// A worker on a thread of its own that is jailed as in a VM: what a device calls beyond its list, ends its tests.
#[cfg(test)]
fn start(mut worker: Worker) -> JoinHandle<()> {
    use firecrest_seccomp::{End, Role, Work, spawn};

    struct Jailed(Worker);
    impl Work for Jailed {
        fn prepare(&mut self) {
            self.0.prepare();
        }
        fn heap(&mut self) -> usize {
            self.0.heap()
        }
        fn run(&mut self) {
            self.0.run().unwrap();
        }
    }
    let role = |worker: &mut Worker| match worker.job() {
        Job::Disk => Role::Block,
        Job::DiskRing => Role::BlockUring,
        Job::Frames => Role::Net,
        Job::Streams => Role::VsockStreams,
        Job::Broker => Role::VsockBroker,
    };
    let name = role(&mut worker).to_string();
    let filter = move |jailed: &mut Jailed| crate::jail_tests::jail().filter(role(&mut jailed.0), -1);
    let (ended, end) = std::sync::mpsc::channel();
    let thread = spawn(&name, filter, Jailed(worker), move |end| ended.send(end).unwrap()).unwrap();
    thread::spawn(move || {
        drop(thread.join().unwrap());
        assert_eq!(end.recv(), Ok(End::Returned));
    })
}

/// The driver of the device on a bench.
pub struct Driver {
    pub bench: Bench,
    pub queues: Vec<RingLayout>,
}

impl Driver {
    /// A driver that has done nothing yet.
    pub fn new(device: Device) -> Self {
        let queues = (0..).zip(&device.queue_sizes).map(|(index, size)| Self::ring(index, *size)).collect();
        Self { bench: Bench::new(device), queues }
    }

    /// A driver that has come up with all features offered.
    pub fn started(device: Device) -> Self {
        let mut driver = Self::new(device);
        driver.start(u64::MAX);
        driver
    }

    pub fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.bench.transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&mut self, offset: u64, value: u32) {
        self.bench.transport.write(offset, &value.to_le_bytes());
    }

    pub fn config(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.bench.transport.read(0x100 + offset, &mut data);
        data
    }

    pub fn offered(&mut self) -> u64 {
        let half = |driver: &mut Self, half| {
            driver.write(0x014, half);
            u64::from(driver.read(0x010))
        };
        half(self, 0) | half(self, 1) << 32
    }

    /// Negotiates those of `wanted` that are offered, sets up all queues, and sets DRIVER_OK.
    pub fn start(&mut self, wanted: u64) {
        self.negotiate(wanted);
        for index in 0..self.queues.len() {
            self.set_up(index as u16);
        }
        self.write(0x070, 0xf);
        assert_eq!(self.read(0x070), 0xf, "running");
    }

    /// Up to FEATURES_OK, from wherever the device is.
    pub fn negotiate(&mut self, wanted: u64) {
        self.reset();
        self.write(0x070, status::ACKNOWLEDGE);
        self.write(0x070, status::ACKNOWLEDGE | status::DRIVER);
        let accepted = self.offered() & (wanted | feature::VERSION_1);
        for half in [0, 1] {
            self.write(0x024, half);
            self.write(0x020, (accepted >> (32 * half)) as u32);
        }
        self.write(0x070, 0xb);
        assert_eq!(self.read(0x070), 0xb, "the device takes the features it offers");
    }

    pub fn reset(&mut self) {
        self.write(0x070, 0);
        assert_eq!(self.read(0x070), 0, "a reset is over when the write is");
        for index in 0..self.queues.len() {
            self.queues[index] = Self::ring(index as u16, self.queues[index].size);
            let rings = RINGS + RINGS_APART * index as u64;
            self.bench.memory.write_slice(&[0; RINGS_APART as usize], GuestAddress(rings)).unwrap();
        }
    }

    /// Describes a queue to the device and declares it ready.
    pub fn set_up(&mut self, index: u16) {
        let RingLayout { size, desc, avail, used, .. } = self.queues[usize::from(index)];
        self.write(0x030, index.into());
        self.write(0x038, size.into());
        for (register, address) in [(0x080, desc), (0x090, avail), (0x0a0, used)] {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(0x044, 1);
        assert_eq!(self.read(0x044), 1, "queue {index} is ready");
    }

    /// Makes a chain available, without a kick. Returns its head.
    pub fn offer(&mut self, queue: u16, chain: &[Seg]) -> u16 {
        let ring = &self.queues[usize::from(queue)];
        let (size, first) = (ring.size, ring.next_desc);
        for (at, seg) in chain.iter().enumerate() {
            let this = (first + at as u16) % size;
            let more = at + 1 < chain.len();
            let flags = u16::from(more) | u16::from(seg.writable) << 1;
            self.descriptor(queue, this, seg.addr, seg.len, flags, (this + 1) % size);
        }
        self.queues[usize::from(queue)].next_desc = (first + chain.len() as u16) % size;
        self.publish(queue, first % size);
        first % size
    }

    /// Writes one descriptor, as it is told.
    pub fn descriptor(&self, queue: u16, at: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = Vec::from(addr.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        let place = self.queues[usize::from(queue)].desc + 16 * u64::from(at);
        self.bench.memory.write_slice(&bytes, GuestAddress(place)).unwrap();
    }

    /// Makes the chain at `head` available.
    pub fn publish(&mut self, queue: u16, head: u16) {
        let memory = &self.bench.memory;
        let ring = &mut self.queues[usize::from(queue)];
        let slot = ring.avail + 4 + 2 * u64::from(ring.avail_idx % ring.size);
        memory.write_slice(&head.to_le_bytes(), GuestAddress(slot)).unwrap();
        ring.avail_idx = ring.avail_idx.wrapping_add(1);
        memory.store(ring.avail_idx.to_le(), GuestAddress(ring.avail + 2), Ordering::Release).unwrap();
    }

    /// Sets the available ring's index, as it is told.
    pub fn set_avail_idx(&self, queue: u16, index: u16) {
        let place = GuestAddress(self.queues[usize::from(queue)].avail + 2);
        self.bench.memory.store(index.to_le(), place, Ordering::Release).unwrap();
    }

    pub fn kick(&mut self, queue: u16) {
        self.write(mmio::QUEUE_NOTIFY, queue.into());
    }

    /// The next used chain, if there is one: head and bytes written.
    pub fn used(&mut self, queue: u16) -> Option<(u16, u32)> {
        let memory = &self.bench.memory;
        let ring = &mut self.queues[usize::from(queue)];
        let index: u16 = memory.load(GuestAddress(ring.used + 2), Ordering::Acquire).unwrap();
        if u16::from_le(index) == ring.used_idx {
            return None;
        }
        let mut element = [0; 8];
        let slot = ring.used + 4 + 8 * u64::from(ring.used_idx % ring.size);
        memory.read_slice(&mut element, GuestAddress(slot)).unwrap();
        ring.used_idx = ring.used_idx.wrapping_add(1);
        // Tell the device from which index on we want to hear: always the next.
        let event = ring.avail + 4 + 2 * u64::from(ring.size);
        memory.store(ring.used_idx.to_le(), GuestAddress(event), Ordering::SeqCst).unwrap();
        let word = |at: usize| u32::from_le_bytes(element[at..at + 4].try_into().unwrap());
        Some((u16::try_from(word(0)).unwrap(), word(4)))
    }

    /// Waits for the next used chain.
    pub fn wait_used(&mut self, queue: u16) -> (u16, u32) {
        let mut used = None;
        self.until("a used buffer", |driver| {
            used = driver.used(queue);
            used.is_some()
        });
        used.unwrap()
    }

    /// Makes a chain available, kicks, and waits until it is used. Returns the bytes written.
    pub fn request(&mut self, queue: u16, chain: &[Seg]) -> u32 {
        let head = self.offer(queue, chain);
        self.kick(queue);
        let (used, written) = self.wait_used(queue);
        assert_eq!(used, head);
        written
    }

    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < LONG, "waited {LONG:?} for {what}");
            thread::yield_now();
        }
    }

    /// Waits until the device says that it needs a reset.
    pub fn wait_needs_reset(&mut self) {
        self.until("DEVICE_NEEDS_RESET", |driver| driver.read(0x070) & status::NEEDS_RESET != 0);
    }

    pub fn put(&self, addr: u64, bytes: &[u8]) {
        self.bench.memory.write_slice(bytes, GuestAddress(addr)).unwrap();
    }

    pub fn get(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.bench.memory.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
        bytes
    }

    /// An empty ring where the driver keeps that of queue `index`.
    pub fn ring(index: u16, size: u16) -> RingLayout {
        let base = RINGS + RINGS_APART * u64::from(index);
        let (desc, avail, used) = (base, base + 0x8000, base + 0xc000);
        RingLayout { size, desc, avail, used, next_desc: 0, avail_idx: 0, used_idx: 0 }
    }
}
