#![allow(clippy::cast_possible_truncation, reason = "tests")]

use super::*;
use crate::testing::conformance::Subject;
use crate::testing::{Driver, Seg, memory, play};
use crate::virtio::{Broken, Card, Chain, Events, Job, TransportState};
use event_manager::EventSet;
use proptest::prelude::*;
use std::sync::Mutex;

const STATUS: u64 = 0x070;
const ALL: u64 = u64::MAX;

/// What a card was told, in order.
type Log = Arc<Mutex<Vec<String>>>;

/// Gives every chain back with as many bytes written as it has room for, and remembers what it was told.
#[derive(Default)]
struct Echo {
    log: Log,
    queues: BTreeMap<u16, Queue>,
    refuse: bool,
}

impl Echo {
    fn say(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }
}

impl Card for Echo {
    fn job(&self) -> Job {
        Job::Disk
    }

    fn activate(&mut self, features: u64, _: &Arc<Line>, _: &mut Events<'_, '_>) -> io::Result<()> {
        self.say(format!("activate {features:#x}"));
        if self.refuse { Err(io::Error::other("no back end")) } else { Ok(()) }
    }

    fn start_queue(&mut self, queue: Queue, _: &mut Events<'_, '_>) {
        self.say(format!("start {}", queue.index()));
        self.queues.insert(queue.index(), queue);
    }

    fn stop_queue(&mut self, index: u16, _: &mut Events<'_, '_>) -> Option<Queue> {
        self.say(format!("stop {index}"));
        self.queues.remove(&index)
    }

    fn deactivate(&mut self, _: &mut Events<'_, '_>) {
        self.say("deactivate".to_owned());
    }

    fn kicked(&mut self, index: u16, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        let Some(queue) = self.queues.get_mut(&index) else { return Ok(()) };
        let mut chain = Chain::new();
        loop {
            queue.disable_kicks()?;
            while queue.pop(&mut chain)? {
                let len = chain.writable_len();
                let _ = chain.write(&Arc::clone(queue.memory()), 0, &vec![0x5a; len.min(1 << 16)]);
                queue.complete(chain.head(), len as u32)?;
            }
            queue.publish()?;
            if !queue.enable_kicks()? {
                return Ok(());
            }
        }
    }

    fn ready(&mut self, _: u32, _: EventSet, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        Ok(())
    }

    fn rescan(&mut self) {
        self.say("rescan".to_owned());
    }
}

const FEATURE: u64 = 1 << 5;

fn device(echo: Echo) -> Device {
    Device {
        kind: Kind::Block,
        features: FEATURE,
        config: vec![1, 2, 3, 4, 5],
        writable: Some((4, Arc::new(AtomicU8::new(5)))),
        queue_sizes: vec![16, 8],
        cards: vec![(vec![0, 1], Box::new(echo))],
        back_end: None,
    }
}

fn echo() -> (Device, Log) {
    let echo = Echo::default();
    let log = Arc::clone(&echo.log);
    (device(echo), log)
}

fn lines(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

impl Subject for Log {
    fn device(&self) -> Device {
        echo().0
    }

    fn work(&self, driver: &mut Driver) {
        assert_eq!(driver.request(0, &[Seg::readable(0x40_0000, 7), Seg::writable(0x50_0000, 5)]), 5);
    }

    fn load(&self, driver: &mut Driver) {
        for queue in [0, 1] {
            (0..8).for_each(|_| _ = driver.offer(queue, &[Seg::writable(0x50_0000, 0x1000)]));
            driver.kick(queue);
        }
    }
}

crate::conformance!(conformance, Log::default());

#[test]
fn what_a_driver_finds() {
    let driver = Driver::new(echo().0);
    let identity = [0x000, 0x004, 0x008, 0x00c].map(|offset| driver.read(offset));
    assert_eq!(identity, [0x7472_6976, 2, 2, u32::from_le_bytes(*b"FCST")]);
    assert_eq!(driver.read(0x034), 16, "the first queue is selected");
    assert_eq!(
        [0x0b0, 0x0b4, 0x0b8, 0x0bc].map(|offset| driver.read(offset)),
        [u32::MAX; 4],
        "no shared memory"
    );
    assert_eq!(driver.config(0, 8), [1, 2, 3, 4, 5, 0, 0, 0]);
    assert_eq!(driver.config(1, 2), [2, 3], "the configuration is read at any width");
    assert_eq!([STATUS, 0x060, 0x044].map(|offset| driver.read(offset)), [0; 3]);
    let mut past = [0xaa; 8];
    driver.bench.transport.read(0xffc, &mut past);
    assert_eq!(past, [0; 8]);
    driver.bench.end();
}

#[test]
fn features_are_shown_by_halves() {
    let mut driver = Driver::new(echo().0);
    assert_eq!(driver.offered(), FEATURES | FEATURE);
    driver.write(0x014, 2);
    assert_eq!(driver.read(0x010), 0, "there are 64 of them");
    driver.bench.end();
}

#[test]
fn a_driver_comes_up_and_works() {
    let (device, log) = echo();
    let mut driver = Driver::started(device);
    assert_eq!(driver.request(0, &[Seg::writable(0x40_0000, 100)]), 100);
    assert_eq!(driver.get(0x40_0000, 101), [vec![0x5a; 100], vec![0]].concat());
    assert_eq!(driver.request(1, &[Seg::readable(0x40_0000, 7), Seg::writable(0x50_0000, 5)]), 5);
    assert_eq!(driver.read(0x060) & 1, 1, "and is interrupted");
    assert!(driver.bench.edges() >= 1);
    driver.write(0x064, 1);
    assert_eq!(driver.read(0x060), 0);
    driver.reset();
    let features = FEATURES | FEATURE;
    let expected =
        [&format!("activate {features:#x}"), "start 0", "start 1", "stop 0", "stop 1", "deactivate"];
    assert_eq!(lines(&log), expected);
    driver.bench.end();
}

#[test]
fn status_bits_come_in_order() {
    let (device, log) = echo();
    let mut driver = Driver::new(device);
    for (written, read) in [
        (2, 0), // a driver before anything was acknowledged
        (4, 0), // running from nothing
        (8, 0),
        (1, 1),
        (1 | 8, 1), // features of no driver
        (1 | 2, 3),
        (1, 3),         // a bit taken back
        (1 | 2 | 4, 3), // running without features
        (1 | 2 | 8, 3), // VERSION_1 not accepted
        (0x40 | 3, 3),  // not the driver's bit
        (0x10 | 3, 3),  // nobody's
    ] {
        driver.write(STATUS, written);
        assert_eq!(driver.read(STATUS), read, "after writing {written:#x}");
    }
    driver.write(STATUS, 0x80 | 3);
    assert_eq!(driver.read(STATUS), 0x83, "a driver may give up at any time");
    driver.reset();
    assert!(lines(&log).is_empty(), "the device never ran");
    driver.bench.end();
}

#[test]
fn features_not_offered_are_not_agreed_on() {
    let mut driver = Driver::new(echo().0);
    for accepted in [feature::VERSION_1 | 1, feature::VERSION_1 | 1 << 63, FEATURE, 0] {
        driver.reset();
        driver.write(STATUS, 1);
        driver.write(STATUS, 3);
        for half in [0u32, 1] {
            driver.write(0x024, half);
            driver.write(0x020, (accepted >> (32 * half)) as u32);
        }
        driver.write(STATUS, 0xb);
        assert_eq!(driver.read(STATUS), 3, "{accepted:#x}");
    }
    driver.bench.end();
}

#[test]
fn features_are_fixed_once_agreed_on() {
    let (device, log) = echo();
    let mut driver = Driver::new(device);
    driver.negotiate(0);
    driver.write(0x024, 0);
    driver.write(0x020, FEATURE as u32);
    driver.write(STATUS, 0xf);
    driver.reset();
    assert_eq!(lines(&log)[0], format!("activate {:#x}", feature::VERSION_1));
    driver.bench.end();
}

#[test]
fn queues_that_cannot_be_need_a_reset() {
    let rings = (0x1_0000u64, 0x1_8000u64, 0x1_c000u64);
    let last = (16 << 20) - 16;
    for (size, desc, avail, used) in [
        (0, rings.0, rings.1, rings.2),
        (3, rings.0, rings.1, rings.2),
        (32, rings.0, rings.1, rings.2),
        (1 << 16, rings.0, rings.1, rings.2),
        (u32::MAX, rings.0, rings.1, rings.2),
        (16, rings.0 + 8, rings.1, rings.2),
        (16, rings.0, rings.1 + 1, rings.2),
        (16, rings.0, rings.1, rings.2 + 2),
        (16, last, rings.1, rings.2),
        (16, rings.0, last, rings.2),
        (16, rings.0, rings.1, last),
        (16, !0xf, rings.1, rings.2),
        (16, rings.0, !1, rings.2),
        (16, rings.0, rings.1, !3),
        (16, rings.0, rings.0 + 16, rings.2),
        (16, rings.0, rings.1, rings.0),
        (16, rings.0, rings.1, rings.1 + 4),
    ] {
        let (device, log) = echo();
        let mut driver = Driver::new(device);
        driver.negotiate(ALL);
        driver.write(0x030, 0);
        driver.write(0x038, size);
        for (register, address) in [(0x080, desc), (0x090, avail), (0x0a0, used)] {
            driver.write(register, address as u32);
            driver.write(register + 4, (address >> 32) as u32);
        }
        driver.write(0x044, 1);
        let what = format!("{size} {desc:#x} {avail:#x} {used:#x}");
        assert_eq!(driver.read(0x044), 0, "{what}");
        assert_eq!(driver.read(STATUS), 0x4b, "{what}");
        driver.write(STATUS, 0x4f);
        driver.kick(0);
        driver.reset();
        assert!(!lines(&log).iter().any(|line| line.starts_with("start")), "{what}");
        // And after the reset all is well.
        driver.start(ALL);
        assert_eq!(driver.request(0, &[Seg::writable(0x40_0000, 1)]), 1);
        driver.bench.end();
    }
}

#[test]
fn a_ready_queue_does_not_change() {
    let (device, log) = echo();
    let mut driver = Driver::started(device);
    assert_eq!(driver.request(0, &[Seg::writable(0x40_0000, 1)]), 1);
    driver.write(0x030, 0);
    driver.write(0x038, 2);
    for register in [0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4] {
        driver.write(register, 0xffff_fff0);
    }
    // Ready it is: it is not started a second time, under what is in flight.
    driver.write(0x044, 1);
    assert_eq!(driver.request(0, &[Seg::writable(0x40_0000, 1)]), 1);
    assert_eq!(lines(&log).iter().filter(|line| *line == "start 0").count(), 1);
    driver.bench.end();
}

#[test]
fn a_queue_can_be_stopped_and_set_up_again() {
    let (device, log) = echo();
    let mut driver = Driver::started(device);
    driver.request(1, &[Seg::writable(0x40_0000, 1)]);
    driver.write(0x030, 1);
    driver.write(0x044, 0);
    assert_eq!(driver.read(0x044), 0);
    driver.kick(1);
    assert_eq!(driver.request(0, &[Seg::writable(0x40_0000, 1)]), 1, "the other one goes on");
    let (desc, size) = (driver.queues[1].desc, driver.queues[1].size);
    driver.put(desc, &vec![0; 0x1_0000]);
    driver.queues[1] = Driver::ring(1, size);
    driver.set_up(1);
    assert_eq!(driver.request(1, &[Seg::writable(0x40_0000, 3)]), 3);
    driver.bench.end();
    let queue_one: Vec<_> = lines(&log).into_iter().filter(|line| line.ends_with(" 1")).collect();
    assert_eq!(queue_one, ["start 1", "stop 1", "start 1", "stop 1"]);
}

#[test]
fn kicks_of_what_is_not_there_are_ignored() {
    let mut driver = Driver::new(echo().0);
    for value in [0, 1, 2, 0xffff, u32::MAX] {
        driver.write(0x050, value);
    }
    driver.start(ALL);
    for value in [2, 0xffff, 0x1_0000, u32::MAX] {
        driver.write(0x050, value);
    }
    assert_eq!(driver.request(0, &[Seg::writable(0x40_0000, 1)]), 1);
    driver.bench.end();
}

#[test]
fn chains_that_break_the_rules_need_a_reset_and_nothing_else() {
    type Break = fn(&mut Driver);
    let ways: [(&str, Break); 10] = [
        ("a loop of one", |d| {
            d.descriptor(0, 0, 0x40_0000, 8, 1, 0);
            d.publish(0, 0);
        }),
        ("a loop of all", |d| {
            (0..16).for_each(|at| d.descriptor(0, at, 0x40_0000, 8, 1, (at + 1) % 16));
            d.publish(0, 3);
        }),
        ("a head beyond the table", |d| d.publish(0, 16)),
        ("a next beyond the table", |d| {
            d.descriptor(0, 0, 0x40_0000, 8, 1, 16);
            d.publish(0, 0);
        }),
        ("a buffer outside memory", |d| _ = d.offer(0, &[Seg::readable(16 << 20, 1)])),
        ("a buffer across the end", |d| _ = d.offer(0, &[Seg::readable((16 << 20) - 4, 8)])),
        ("an address that wraps", |d| _ = d.offer(0, &[Seg::writable(u64::MAX - 3, 8)])),
        ("a huge length", |d| _ = d.offer(0, &[Seg::writable(0x40_0000, u32::MAX)])),
        ("readable after writable", |d| {
            d.offer(0, &[Seg::writable(0x40_0000, 8), Seg::readable(0x40_0000, 8)]);
        }),
        ("an index far ahead", |d| d.set_avail_idx(0, 17)),
    ];
    for (what, break_rules) in ways {
        let mut driver = Driver::started(echo().0);
        driver.request(1, &[Seg::writable(0x40_0000, 1)]);
        driver.write(0x064, 3);
        break_rules(&mut driver);
        driver.kick(0);
        driver.wait_needs_reset();
        driver.until(what, |driver| driver.read(0x060) & 2 != 0);
        driver.kick(1);
        driver.start(ALL);
        assert_eq!(driver.request(0, &[Seg::writable(0x40_0000, 9)]), 9, "{what}");
        driver.bench.end();
    }
}

#[test]
fn indirect_tables_are_followed_and_checked() {
    let table = 0x60_0000;
    let entry = |addr: u64, len: u32, flags: u16, next: u16| {
        let mut bytes = Vec::from(addr.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        bytes
    };
    let good = [entry(0x40_0000, 8, 1, 1), entry(0x50_0000, 70, 2, 0)].concat();
    for (what, table_len, bytes, written) in [
        ("a chain in a table", 32, good.clone(), Some(70)),
        ("a table of odd length", 33, good.clone(), None),
        ("an empty table", 0, good.clone(), None),
        ("a table within a table", 16, entry(table, 16, 4, 0), None),
        ("a next beyond the table", 16, good.clone(), None),
        ("a loop in a table", 16, entry(0x40_0000, 8, 1, 0), None),
        ("a table of too many buffers", 16 * 2000, entry(0x40_0000, 8, 1, 1).repeat(2000), None),
    ] {
        let mut driver = Driver::started(echo().0);
        driver.put(table, &bytes);
        if what == "a table of too many buffers" {
            for at in 0..1999u16 {
                driver.put(table + u64::from(at) * 16, &entry(0x40_0000, 8, 1, at + 1));
            }
        }
        driver.descriptor(0, 0, table, table_len, 4, 0);
        driver.publish(0, 0);
        driver.kick(0);
        match written {
            Some(written) => assert_eq!(driver.wait_used(0), (0, written), "{what}"),
            None => driver.wait_needs_reset(),
        }
        driver.bench.end();
    }
}

#[test]
fn odd_accesses_are_ignored() {
    let mut driver = Driver::started(echo().0);
    let before: Vec<u32> = (0..0x200).step_by(4).map(|offset| driver.read(offset)).collect();
    for offset in 0..0x200u64 {
        for data in [&[][..], &[0xff], &[0xff; 2], &[0xff; 3], &[0xff; 8]] {
            // The one byte that can be written has a test of its own.
            if !(0xfd..=0x104).contains(&offset) {
                driver.bench.transport.write(offset, data);
            }
        }
    }
    for offset in [0x000, 0x004, 0x008, 0x00c, 0x010, 0x034, 0x060, 0x0b0, 0x0fc, 0x100] {
        driver.write(offset, 0x1234_5678);
    }
    let after: Vec<u32> = (0..0x200).step_by(4).map(|offset| driver.read(offset)).collect();
    assert_eq!(before, after);
    driver.bench.end();
}

#[test]
fn the_driver_writes_the_byte_it_may_and_no_other() {
    let (device, _) = echo();
    let byte = Arc::clone(&device.writable.as_ref().unwrap().1);
    let mut driver = Driver::new(device);
    driver.bench.transport.write(0x104, &[9]);
    assert_eq!(byte.load(Ordering::SeqCst), 5, "nobody drives the device yet");
    driver.start(ALL);
    driver.bench.transport.write(0x100, &[7; 8]);
    assert_eq!((driver.config(0, 6), byte.load(Ordering::SeqCst)), (vec![1, 2, 3, 4, 7, 0], 7));
    driver.bench.transport.write(0x104, &[8]);
    assert_eq!((driver.config(0, 6), byte.load(Ordering::SeqCst)), (vec![1, 2, 3, 4, 8, 0], 8));
    driver.bench.transport.write(0x105, &[1; 4]);
    driver.bench.transport.write(u64::MAX - 2, &[1; 8]);
    driver.reset();
    assert_eq!((driver.config(0, 6), byte.load(Ordering::SeqCst)), (vec![1, 2, 3, 4, 5, 0], 5));
    driver.bench.end();
}

#[test]
fn a_change_of_the_configuration_is_told() {
    let driver = Driver::started(echo().0);
    let (generation, edges) = (driver.read(0x0fc), driver.bench.edges());
    driver.bench.transport.line.change_config(1, &[8, 9]);
    assert_eq!(driver.config(0, 5), [1, 8, 9, 4, 5]);
    assert_ne!(driver.read(0x0fc), generation);
    assert_eq!((driver.read(0x060), driver.bench.edges()), (2, edges + 1));
    driver.bench.end();
}

#[test]
fn a_back_end_that_refuses_needs_a_reset() {
    let echo = Echo { refuse: true, ..Echo::default() };
    let log = Arc::clone(&echo.log);
    let mut driver = Driver::new(device(echo));
    driver.negotiate(ALL);
    driver.set_up(0);
    driver.write(STATUS, 0xf);
    driver.wait_needs_reset();
    driver.reset();
    assert_eq!(lines(&log).last().unwrap(), "deactivate");
    driver.bench.end();
}

#[test]
fn a_device_continues_where_it_was_saved() {
    let mut driver = Driver::started(echo().0);
    (0..20).for_each(|_| _ = driver.request(0, &[Seg::writable(0x40_0000, 4)]));
    let state = driver.bench.transport.save();
    assert_eq!((state.status, state.queues[0].next_avail, state.queues[0].next_used), (0xf, 20, 20));
    // The saved one goes on, too.
    assert_eq!(driver.request(0, &[Seg::writable(0x40_0000, 4)]), 4);
    let state = driver.bench.transport.save();

    let mut other = Driver::new(echo().0);
    let mut ram = vec![0; 16 << 20];
    vm_memory::Bytes::read_slice(&*driver.bench.memory, &mut ram, vm_memory::GuestAddress(0)).unwrap();
    other.put(0, &ram);
    other.queues.clone_from(&driver.queues);
    other.bench.transport.restore(&state).unwrap();
    assert_eq!(other.bench.transport.save(), state);
    assert_eq!(other.request(0, &[Seg::writable(0x40_0000, 6)]), 6);
    assert_eq!(other.request(1, &[Seg::writable(0x40_0000, 2)]), 2);
    other.bench.end();
    driver.bench.end();
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let mut driver = Driver::started(echo().0);
    let good = driver.bench.transport.save();
    driver.bench.end();
    let refused = |state: &TransportState| {
        let mut driver = Driver::new(echo().0);
        let error = driver.bench.transport.restore(state).unwrap_err().to_string();
        assert_eq!(driver.read(STATUS), 0, "nothing is changed");
        driver.bench.end();
        error
    };
    let mut bad = good.clone();
    bad.queues.pop();
    assert_eq!(refused(&bad), "the state has 1 queues, the device has 2");
    let mut bad = good.clone();
    bad.features |= 1 << 40;
    assert_eq!(refused(&bad), "the driver uses features 0x10000000000, which the device does not offer here");
    let mut bad = good;
    bad.queues[1].used_ring = u64::MAX;
    assert_eq!(refused(&bad), "queue 1 cannot be started");
}

#[test]
fn rescan_reaches_the_card_and_counts_are_kept() {
    let (device, log) = echo();
    let mut driver = Driver::started(device);
    driver.bench.transport.rescan();
    driver.until("the card", |_| lines(&log).iter().any(|line| line == "rescan"));
    driver.request(0, &[Seg::writable(0x40_0000, 1)]);
    driver.reset();
    let counts = driver.bench.transport.counts();
    assert_eq!((counts[0].chains, counts[1].chains, counts[0].interrupts), (1, 0, 1));
    driver.bench.end();
}

#[test]
fn the_driver_says_when_it_wants_to_be_interrupted() {
    // Without event indices: a flag of the available ring.
    let mut driver = Driver::new(echo().0);
    driver.start(!feature::RING_EVENT_IDX);
    driver.put(driver.queues[0].avail, &[1, 0]);
    driver.request(0, &[Seg::writable(0x40_0000, 1)]);
    driver.reset();
    assert_eq!(driver.bench.transport.counts()[0].interrupts, 0);
    // With them: an index.
    driver.start(ALL);
    let event = driver.queues[0].avail + 4 + 2 * 16;
    for (index, interrupts) in [(0u16, 0), (1, 0), (2, 1), (3, 1)] {
        driver.offer(0, &[Seg::writable(0x40_0000, 1)]);
        driver.put(event, &2u16.to_le_bytes());
        driver.kick(0);
        let used = driver.queues[0].used + 2;
        driver.until("a used buffer", |driver| driver.get(used, 2) == (index + 1).to_le_bytes());
        driver.until("the decision", |driver| driver.bench.transport.counts()[0].interrupts == interrupts);
    }
    driver.bench.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_script(script in prop::collection::vec(any::<u8>(), 0..600)) {
        play(echo().0, &script);
    }

    /// Any accesses, any ring bytes: no panic, no hang, and a reset brings it all back.
    #[test]
    fn any_accesses(
        accesses in prop::collection::vec((any::<bool>(), 0u64..0x120, any::<u32>(), 0usize..9), 1..150),
        ring in prop::collection::vec(any::<u8>(), 0..512),
        up in any::<bool>(),
    ) {
        let mut driver = Driver::new(echo().0);
        if up {
            driver.start(ALL);
            driver.put(driver.queues[0].desc, &ring);
        }
        for (is_write, offset, value, width) in accesses {
            let (data, small) = (u64::from(value).to_le_bytes(), value % 17);
            if is_write {
                driver.write(offset & !3, if value % 2 == 0 { small } else { value });
                driver.bench.transport.write(offset, &data[..width.min(8)]);
            } else {
                let mut data = [0; 8];
                driver.bench.transport.read(offset, &mut data[..width.min(8)]);
            }
        }
        driver.reset();
        driver.start(ALL);
        prop_assert_eq!(driver.request(0, &[Seg::writable(0x40_0000, 5)]), 5);
        driver.bench.end();
    }
}

#[test]
fn memory_of_the_rings_is_all_that_a_queue_check_asks_for() {
    let memory = memory();
    let state = QueueState {
        size: 16,
        desc_table: 0,
        avail_ring: 0x1000,
        used_ring: 0x2000,
        ..QueueState::default()
    };
    assert!(queue::check(&state, 16, &memory).is_ok());
    let touching = QueueState { avail_ring: 256, used_ring: 256 + 4 + 32 + 2 + 2, ..state };
    assert!(queue::check(&touching, 16, &memory).is_ok(), "rings may lie next to one another");
}
