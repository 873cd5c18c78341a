//! What every device has to pass, whatever it does.
//!
//! A device says how it is made and how one piece of work is done and checked ([`Subject`]);
//! [`conformance!`](crate::conformance) makes a test of each function here.

use super::{Driver, Seg};
use crate::virtio::mmio::{feature, status};
use crate::virtio::{Device, TransportState};

/// A device to be tested.
pub trait Subject {
    /// A new device, with a back end of its own.
    fn device(&self) -> Device;

    /// Does a piece of work with a running device, and checks what came of it.
    fn work(&self, driver: &mut Driver);

    /// Gives a running device as much to do as its queues take, and does not wait for any of it.
    fn load(&self, driver: &mut Driver);

    /// A queue from which the device takes chains as soon as it is kicked.
    fn busy_queue(&self) -> u16 {
        0
    }
}

/// The tests of every device, in a module of the given name: `conformance!(name, subject expression)`.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $subject:expr) => {
        mod $name {
            use super::*;
            $crate::conformance!(@tests $subject;
                comes_up_and_works, works_without_optional_features, is_reset_before_it_is_started,
                is_reset_in_the_middle_of_work, is_reset_many_times, ends_in_the_middle_of_work,
                continues_elsewhere, refuses_broken_rings, survives_garbage_in_every_ring,
                ignores_writes_to_its_configuration, kicks_without_work_do_nothing);
        }
    };
    (@tests $subject:expr; $($test:ident),+) => {
        $(
            #[test]
            fn $test() {
                $crate::testing::conformance::$test(&$subject);
            }
        )+
    };
}

pub fn comes_up_and_works(subject: &impl Subject) {
    let mut driver = Driver::new(subject.device());
    let offered = driver.offered();
    let ring = feature::VERSION_1 | feature::RING_EVENT_IDX | feature::RING_INDIRECT_DESC;
    assert_eq!(offered & ring, ring, "offered: {offered:#x}");
    driver.start(u64::MAX);
    (0..3).for_each(|_| subject.work(&mut driver));
    driver.bench.end();
}

pub fn works_without_optional_features(subject: &impl Subject) {
    let mut driver = Driver::new(subject.device());
    driver.start(0);
    (0..3).for_each(|_| subject.work(&mut driver));
    driver.bench.end();
}

pub fn is_reset_before_it_is_started(subject: &impl Subject) {
    let mut driver = Driver::new(subject.device());
    for steps in [&[][..], &[1], &[1, 3], &[1, 3, 0xb]] {
        driver.reset();
        for step in steps {
            driver.write(0x070, *step);
        }
    }
    driver.negotiate(u64::MAX);
    driver.set_up(0);
    driver.start(u64::MAX);
    subject.work(&mut driver);
    driver.bench.end();
}

/// The reset is over when the write is: nothing of the guest's memory changes afterwards.
pub fn is_reset_in_the_middle_of_work(subject: &impl Subject) {
    let mut driver = Driver::started(subject.device());
    for _ in 0..20 {
        subject.load(&mut driver);
        driver.write(0x070, 0);
        let before = driver.get(0, 16 << 20);
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(before == driver.get(0, 16 << 20), "memory changed after the reset");
        driver.start(u64::MAX);
        subject.work(&mut driver);
    }
    driver.bench.end();
}

pub fn is_reset_many_times(subject: &impl Subject) {
    let mut driver = Driver::new(subject.device());
    (0..200).for_each(|_| driver.start(u64::MAX));
    subject.work(&mut driver);
    driver.bench.end();
}

pub fn ends_in_the_middle_of_work(subject: &impl Subject) {
    let mut driver = Driver::started(subject.device());
    subject.work(&mut driver);
    subject.load(&mut driver);
    driver.bench.end();
}

/// State out, state in: the driver of the one device goes on with the other.
pub fn continues_elsewhere(subject: &impl Subject) {
    let mut driver = Driver::started(subject.device());
    subject.work(&mut driver);
    let state = driver.bench.transport.save();
    let (rings, ram) = (driver.queues.clone(), driver.get(0, 16 << 20));
    subject.work(&mut driver);
    driver.bench.end();

    let mut other = Driver::new(subject.device());
    other.put(0, &ram);
    other.queues = rings;
    other.bench.transport.restore(&state).unwrap();
    (0..3).for_each(|_| subject.work(&mut other));
    other.reset();
    let fresh = TransportState { queues: vec![Default::default(); other.queues.len()], ..Default::default() };
    let now = other.bench.transport.save();
    assert_eq!(TransportState { writable_config: 0, ..now }, fresh, "a reset leaves nothing of it");
    other.bench.end();
}

/// A ring that breaks the rules is a device that needs a reset, and after the reset it is as good as new.
pub fn refuses_broken_rings(subject: &impl Subject) {
    let queue = subject.busy_queue();
    type Way = fn(&mut Driver, u16);
    let ways: [(&str, Way); 4] = [
        ("a loop", |driver, queue| {
            driver.descriptor(queue, 0, super::BUFFERS, 8, 1, 0);
            driver.publish(queue, 0);
        }),
        ("a head that is not there", |driver, queue| driver.publish(queue, u16::MAX)),
        ("a buffer outside memory", |driver, queue| {
            driver.offer(queue, &[Seg::readable(u64::MAX - 4, 8)]);
        }),
        ("an index far ahead", |driver, queue| driver.set_avail_idx(queue, u16::MAX / 2)),
    ];
    let mut driver = Driver::started(subject.device());
    for (what, way) in ways {
        driver.start(u64::MAX);
        way(&mut driver, queue);
        driver.kick(queue);
        driver.wait_needs_reset();
        driver.until(what, |driver| driver.read(0x060) & 2 != 0);
        // Nothing more is done, whatever is asked.
        (0..driver.queues.len()).for_each(|index| driver.kick(index as u16));
        driver.start(u64::MAX);
        subject.work(&mut driver);
    }
    driver.bench.end();
}

/// All descriptors, rings and buffers of every queue are noise: whatever the device makes of it, it ends.
pub fn survives_garbage_in_every_ring(subject: &impl Subject) {
    let mut driver = Driver::new(subject.device());
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for round in 0..60 {
        driver.start(u64::MAX);
        for index in 0..driver.queues.len() {
            let size = driver.queues[index].size;
            for at in 0..size {
                // Half of the rounds have addresses in memory and small lengths, to get further in.
                let (addr, len) = match round % 2 {
                    0 => (noise.next(), noise.next() as u32),
                    _ => (noise.next() % (16 << 20), noise.next() as u32 % 0x2000),
                };
                let flags = noise.next() as u16 & 7;
                driver.descriptor(index as u16, at, addr, len, flags, noise.next() as u16 % (size + 1));
            }
            for _ in 0..noise.next() % 8 {
                let head = noise.next() as u16 % size;
                driver.publish(index as u16, head);
            }
            driver.kick(index as u16);
        }
    }
    driver.reset();
    driver.start(u64::MAX);
    subject.work(&mut driver);
    driver.bench.end();
}

pub fn ignores_writes_to_its_configuration(subject: &impl Subject) {
    let mut driver = Driver::started(subject.device());
    let before = driver.config(0, 0x40);
    for offset in 0x100..0x200 {
        driver.bench.transport.write(offset, &[0xff]);
    }
    let after = driver.config(0, 0x40);
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert!(changed <= 1, "one byte of a disk's is the driver's: {before:?} {after:?}");
    driver.start(u64::MAX);
    assert_eq!(driver.config(0, 0x40), before, "and a reset takes it back");
    subject.work(&mut driver);
    driver.bench.end();
}

pub fn kicks_without_work_do_nothing(subject: &impl Subject) {
    let mut driver = Driver::started(subject.device());
    for _ in 0..50 {
        (0..driver.queues.len()).for_each(|index| driver.kick(index as u16));
    }
    subject.work(&mut driver);
    assert_eq!(driver.read(0x070) & status::NEEDS_RESET, 0);
    driver.bench.end();
}

/// Numbers without a pattern, the same in every run (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
