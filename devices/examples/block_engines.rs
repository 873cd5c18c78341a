//! Compares the block device's engines, with the mock driver in the guest's place: random reads and writes a
//! second, the best of several runs in turn.
//!
//! `cargo run --release -p firecrest-devices --features test-utils --example block_engines FILE [cold]`
//! overwrites FILE; with `cold`, the host's cache of it is dropped before each run.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a measurement"
)]

use std::process::Command;
use std::time::{Duration, Instant};

use firecrest_devices::block::{Block, BlockEngine};
use firecrest_devices::testing::{BUFFERS, Driver, Seg};

const RUN: Duration = Duration::from_millis(400);
const RUNS: usize = 5;
/// Room for one request in guest memory: header and status, then data.
const ROOM: u64 = 0x2_1000;

/// What is asked for, and how many at once.
#[derive(Clone, Copy)]
struct Load {
    write: bool,
    size: u32,
    depth: u64,
}

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Requests a second.
fn run(path: &str, engine: BlockEngine, load: Load) -> f64 {
    let mut driver = Driver::started(Block::file(path).engine(engine).build().unwrap());
    let sectors = u64::from_le_bytes(driver.config(0, 8).try_into().unwrap());
    let per_request = u64::from(load.size) / 512;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut slots = vec![0; usize::from(driver.queues[0].size)];
    let mut send = |driver: &mut Driver, slots: &mut Vec<u64>, slot: u64| {
        let place = BUFFERS + ROOM * slot;
        let sector = noise.next() % (sectors / per_request) * per_request;
        driver
            .put(place, &[&u32::from(load.write).to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat());
        let data = Seg { addr: place + 0x1000, len: load.size, writable: !load.write };
        let head = driver.offer(0, &[Seg::readable(place, 16), data, Seg::writable(place + 16, 1)]);
        slots[usize::from(head)] = slot;
    };
    let start = Instant::now();
    (0..load.depth).for_each(|slot| send(&mut driver, &mut slots, slot));
    driver.kick(0);
    let mut done = 0u32;
    while start.elapsed() < RUN {
        let mut used = Some(driver.wait_used(0));
        while let Some((head, _)) = used {
            done += 1;
            let slot = slots[usize::from(head)];
            send(&mut driver, &mut slots, slot);
            used = driver.used(0);
        }
        driver.kick(0);
    }
    let rate = f64::from(done) / start.elapsed().as_secs_f64();
    driver.bench.end();
    rate
}

fn drop_cache(path: &str) {
    let file = format!("of={path}");
    let rest = ["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"];
    assert!(Command::new("dd").arg("if=/dev/null").arg(file).args(rest).status().unwrap().success());
}

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let cold = std::env::args().nth(2).is_some_and(|word| word == "cold");
    for (write, size, depth) in [
        (false, 4 << 10, 1),
        (false, 4 << 10, 16),
        (false, 4 << 10, 64),
        (false, 128 << 10, 16),
        (true, 4 << 10, 1),
        (true, 4 << 10, 64),
        (true, 128 << 10, 16),
    ] {
        let load = Load { write, size, depth };
        let (mut sync, mut io_uring) = (0f64, 0f64);
        for _ in 0..RUNS {
            for (engine, best) in [(BlockEngine::Sync, &mut sync), (BlockEngine::IoUring, &mut io_uring)] {
                if cold {
                    drop_cache(&path);
                }
                *best = best.max(run(&path, engine, load));
            }
        }
        let kind = if write { "writes" } else { "reads" };
        let ratio = io_uring / sync;
        println!(
            "{kind:6} of {size:6}, {depth:2} at once: sync {sync:7.0}/s, io_uring {io_uring:7.0}/s, {ratio:.2}"
        );
    }
}
