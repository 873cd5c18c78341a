//! What every device has to pass, and hostile drivers, with a pair of sockets for a TAP.

#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "tests")]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;

use proptest::prelude::*;

use super::HEADER_LEN;
use super::fake::fake;
use super::tests::{RX, TX, counts, frame, give, pair, receive};
use crate::testing::conformance::Subject;
use crate::testing::{BUFFERS, Driver, Seg, play};
use crate::virtio::Device;

/// A card, and what its frames go to.
#[derive(Default)]
struct Fake(Mutex<Option<UnixDatagram>>);

impl Subject for Fake {
    fn device(&self) -> Device {
        let (host, device) = pair();
        *self.0.lock().unwrap() = Some(host);
        device
    }

    /// A frame each way.
    fn work(&self, driver: &mut Driver) {
        let host = self.0.lock().unwrap();
        let host = host.as_ref().unwrap();
        let sent = frame(5, 700);
        // Whatever is left of what was done before.
        let mut bytes = [0; 2000];
        while host.recv(&mut bytes).is_ok() {}
        driver.put(BUFFERS, &sent);
        driver.request(TX, &[Seg::readable(BUFFERS, 12), Seg::readable(BUFFERS + 12, 700)]);
        assert_eq!(host.recv(&mut bytes).unwrap(), sent.len());
        assert_eq!(bytes[..sent.len()], sent);
        // Frames of an earlier load come first, and the socket may be full of them.
        let (mut slot, mut is_sent) = (1, false);
        loop {
            is_sent = is_sent || host.send(&sent).is_ok();
            give(driver, slot, 1, 1600, 0x1000);
            if receive(driver, &mut slot, 0x1000)[HEADER_LEN..] == sent[HEADER_LEN..] {
                return;
            }
        }
    }

    fn load(&self, driver: &mut Driver) {
        let host = self.0.lock().unwrap();
        for number in 0..100 {
            driver.offer(RX, &[Seg::writable(BUFFERS + 0x1000 * number, 1600)]);
            driver.offer(TX, &[Seg::readable(BUFFERS + 0x1000 * number, 1000)]);
        }
        driver.kick(RX);
        driver.kick(TX);
        while host.as_ref().unwrap().send(&frame(9, 900)).is_ok() {}
    }

    fn busy_queue(&self) -> u16 {
        TX
    }
}

crate::conformance!(conforms, Fake::default());

/// Whether a thread of this process waits for events of this descriptor.
fn is_waited_for(fd: i32) -> bool {
    fs::read_dir("/proc/self/fdinfo").unwrap().flatten().any(|entry| {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        info.lines()
            .filter_map(|line| line.strip_prefix("tfd:"))
            .any(|rest| rest.split_whitespace().next().and_then(|number| number.parse().ok()) == Some(fd))
    })
}

#[test]
fn after_a_broken_ring_nothing_is_waited_for() {
    for queue in [RX, TX] {
        let (host, ours) = UnixDatagram::pair().unwrap();
        let fd = ours.as_raw_fd();
        let mut driver = Driver::started(fake(vec![ours]).unwrap());
        give(&mut driver, 0, 1, 1600, 0x1000);
        driver.until("the TAP to be waited for", |_| is_waited_for(fd));
        let broken = if queue == RX { Seg::writable(u64::MAX, 100) } else { Seg::readable(u64::MAX, 100) };
        driver.offer(queue, &[broken]);
        driver.kick(queue);
        // A frame has the card look for more buffers.
        host.send(&frame(0, 100)).unwrap();
        host.send(&frame(1, 100)).unwrap();
        driver.wait_needs_reset();
        driver.until("the TAP to be let go", |_| !is_waited_for(fd));
        driver.start(u64::MAX);
        give(&mut driver, 0, 1, 1600, 0x1000);
        driver.wait_used(RX);
        driver.bench.end();
    }
}

/// Memory that no chain names.
const CANARY: u64 = BUFFERS + 0x10_0000;
const CANARY_LEN: usize = 0x1000;

/// A descriptor in or near the buffers.
fn seg() -> impl Strategy<Value = Seg> {
    let addr =
        prop_oneof![8 => BUFFERS..CANARY - 0x1000, 1 => Just(u64::MAX), 1 => (16_u64 << 20) - 8..16 << 20];
    let len = prop_oneof![4 => 0_u32..40, 4 => 0_u32..4096, 1 => Just(u32::MAX)];
    (addr, len, any::<bool>()).prop_map(|(addr, len, writable)| Seg { addr, len: len.min(0x1000), writable })
}

fn chain() -> impl Strategy<Value = Vec<Seg>> {
    prop::collection::vec(seg(), 1..6).prop_map(|mut chain| {
        // Half of the point is what happens to chains that keep the rules.
        chain.sort_by_key(|seg| seg.writable);
        chain
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_script_is_survived(script in prop::collection::vec(any::<u8>(), 0..400), pairs in 1..3_usize) {
        let (hosts, ours): (Vec<_>, _) = (0..pairs).map(|_| UnixDatagram::pair().unwrap()).unzip();
        for host in &hosts {
            host.set_nonblocking(true).unwrap();
            while host.send(&frame(1, 1000)).is_ok() {}
        }
        play(fake(ours).unwrap(), &script);
    }

    #[test]
    fn any_chains_and_frames_stay_within_their_buffers(
        features in prop_oneof![Just(u64::MAX), Just(0), any::<u64>()],
        chains in prop::collection::vec((chain(), 0..2_u16), 1..40),
        frames in prop::collection::vec(12_usize..5000, 0..8),
        noise in prop::collection::vec(any::<u8>(), 64),
    ) {
        let (host, device) = pair();
        let mut driver = Driver::new(device);
        driver.start(features);
        driver.put(CANARY, &[0xa5; CANARY_LEN]);
        driver.put(BUFFERS, &noise);
        for len in &frames {
            host.send(&frame(0, *len)).unwrap();
        }
        for (chain, queue) in &chains {
            driver.offer(*queue, chain);
            driver.kick(*queue);
        }
        let mut bytes = vec![0; 1 << 17];
        while host.recv(&mut bytes).is_ok() {}
        // What is given back is never more than was given, and never more than a chain holds.
        for queue in [RX, TX] {
            let mut given = chains.iter().filter(|(_, of)| *of == queue).map(|(chain, _)| {
                chain.iter().filter(|seg| seg.writable).map(|seg| seg.len).sum::<u32>()
            });
            while let Some((_, written)) = driver.used(queue) {
                prop_assert!(written <= given.next().unwrap());
            }
        }
        driver.reset();
        prop_assert_eq!(driver.get(CANARY, CANARY_LEN), vec![0xa5; CANARY_LEN]);
        driver.start(u64::MAX);
        driver.put(BUFFERS, &frame(0, 100));
        driver.request(TX, &[Seg::readable(BUFFERS, 112)]);
        prop_assert!(counts(&driver, TX).chains > 0);
        driver.bench.end();
    }
}
