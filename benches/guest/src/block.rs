//! Block workloads: reads or writes of one size, in random or rising order, so many at a time.
//!
//! The harness has stamped every 4 KiB of the file with its number, and so does a write: a read that brings
//! anything else ends the run.

use core::ptr;

use crate::clock::{self, Patience};
use crate::mmio::Device;
use crate::params::Params;
use crate::queue::{Buffer, Queue};
use crate::{Work, Workload, fail, pool};

const KIND: u32 = 2;
const SECTOR: u64 = 512;
const STAMPED: u64 = 4096;
/// Set in the stamps the guest has written, so that the harness sees them.
const WRITTEN: u64 = 1 << 63;
/// Descriptors of a request: header, data, status.
const PARTS: u16 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    Read = 0,
    Write = 1,
}

/// `struct virtio_blk_req`, what comes before the data.
#[repr(C)]
struct Header {
    kind: u32,
    reserved: u32,
    sector: u64,
}

/// What a request uses, again and again.
#[derive(Clone, Copy)]
struct Slot {
    header: *mut Header,
    data: *mut u8,
    status: *mut u8,
}

pub struct Block {
    device: Device,
    queue: Queue,
    direction: Direction,
    size: u64,
    /// Requests of this size the disk holds.
    places: u64,
    slots: [Slot; Self::DEEPEST],
    depth: u16,
    sequential: bool,
    last: u64,
}

impl Block {
    const DEEPEST: usize = 64;

    pub fn new(params: &Params, direction: Direction) -> Self {
        let device = Device::open(params, KIND, 0);
        let queue = device.queue(0, 256);
        let size = params.number("size", STAMPED).next_multiple_of(STAMPED);
        let depth = params.number("depth", 1) as u16;
        if usize::from(depth) > Self::DEEPEST || depth * PARTS > queue.size() || depth == 0 {
            fail("the queue is not that deep");
        }
        let none = Slot { header: ptr::null_mut(), data: ptr::null_mut(), status: ptr::null_mut() };
        let mut slots = [none; Self::DEEPEST];
        for (slot, first) in slots[..usize::from(depth)].iter_mut().zip((0..).step_by(PARTS.into())) {
            let head = pool::pages(STAMPED);
            // SAFETY: both lie within the page.
            let (header, status) = unsafe { (head.cast(), head.add(64)) };
            *slot = Slot { header, data: pool::pages(size), status };
            let data = match direction {
                Direction::Read => Buffer::Write(slot.data, size as u32),
                Direction::Write => Buffer::Read(slot.data, size as u32),
            };
            let header = Buffer::Read(head, size_of::<Header>() as u32);
            queue.chain(first, &[header, data, Buffer::Write(status, 1)]);
        }
        let places = device.config(0) * SECTOR / size;
        if places == 0 {
            fail("the disk is too small");
        }
        device.start();
        let sequential = params.number("sequential", 0) != 0;
        Self { device, queue, direction, size, places, slots, depth, sequential, last: 0x9e37_79b9_7f4a_7c15 }
    }

    /// Where the next request goes, in units of its size.
    fn next_place(&mut self) -> u64 {
        if self.sequential {
            self.last = self.last.wrapping_add(1);
        } else {
            self.last ^= self.last << 13;
            self.last ^= self.last >> 7;
            self.last ^= self.last << 17;
        }
        self.last % self.places
    }

    fn submit(&mut self, index: u16) {
        let place = self.next_place();
        let Slot { header, data, status } = self.slots[usize::from(index)];
        let (sector, kind) = (place * self.size / SECTOR, self.direction as u32);
        // SAFETY: the slot's own memory, which the device does not use before it is shown the request.
        unsafe {
            ptr::write_volatile(header, Header { kind, reserved: 0, sector });
            ptr::write_volatile(status, 0xff);
        }
        for offset in (0..self.size).step_by(STAMPED as usize) {
            let stamp = match self.direction {
                Direction::Read => u64::MAX,
                Direction::Write => ((place * self.size + offset) / STAMPED) | WRITTEN,
            };
            // SAFETY: as above; `offset` is below the size.
            unsafe { ptr::write_volatile(data.add(offset as usize).cast(), stamp) };
        }
        self.queue.put(index * PARTS);
    }

    fn check(&self, index: u16) {
        let Slot { header, data, status } = self.slots[usize::from(index)];
        // SAFETY: the slot's own memory; the device is done with it.
        if unsafe { ptr::read_volatile(status) } != 0 {
            fail("a request has failed");
        }
        // SAFETY: as above.
        let first = unsafe { (*header).sector } * SECTOR / STAMPED;
        for (number, offset) in (first..).zip((0..self.size).step_by(STAMPED as usize)) {
            // SAFETY: as above; `offset` is below the size.
            let stamp: u64 = unsafe { ptr::read_volatile(data.add(offset as usize).cast()) };
            if stamp & !WRITTEN != number {
                fail("what was read is not what is on the disk");
            }
        }
    }
}

impl Workload for Block {
    fn run(&mut self, until: u64) -> Work {
        let mut work = Work::default();
        (0..self.depth).for_each(|index| self.submit(index));
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
                let index = done.0 / PARTS;
                if index >= self.depth {
                    fail("the device has completed what it was not given");
                }
                self.check(index);
                work.operations += 1;
                work.bytes += self.size;
                if more {
                    self.submit(index);
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
