//! Every test of requests is run with every engine.
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "tests")]

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use proptest::prelude::*;
use vmm_sys_util::tempdir::TempDir;
use vmm_sys_util::tempfile::TempFile;

use super::{Block, BlockEngine, Cache};
use crate::rate_limit::{Bucket, RateLimit};
use crate::testing::conformance::Subject;
use crate::testing::{BUFFERS, Driver, Seg, play};
use crate::virtio::Device;

const HEADER: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x800;
const DATA: u64 = BUFFERS + 0x1000;
/// What the status byte is before the device writes it.
const UNTOUCHED: u8 = 0xee;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// A file of `len` bytes, all `0xaa`.
fn image(len: usize) -> TempFile {
    let file = TempFile::new_in(&crate::jail_tests::directory()).unwrap();
    file.as_file().write_all_at(&vec![0xaa; len], 0).unwrap();
    file
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// One request of the plainest form. Gives its status, and how many bytes the device says it wrote.
fn ask(driver: &mut Driver, kind: u32, sector: u64, out: &[u8], room: u32) -> (u8, u32) {
    driver.put(HEADER, &header(kind, sector));
    driver.put(STATUS, &[UNTOUCHED]);
    driver.put(DATA, out);
    let mut chain = vec![Seg::readable(HEADER, 16)];
    if !out.is_empty() {
        chain.push(Seg::readable(DATA, out.len() as u32));
    }
    if room > 0 {
        chain.push(Seg::writable(DATA, room));
    }
    chain.push(Seg::writable(STATUS, 1));
    let written = driver.request(0, &chain);
    (driver.get(STATUS, 1)[0], written)
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect()
}

/// A disk of 1 MiB whose file is gone when the device is.
struct Plain {
    engine: BlockEngine,
    queues: u16,
}

impl Subject for Plain {
    fn device(&self) -> Device {
        let file = image(1 << 20);
        Block::file(file.as_path()).engine(self.engine).queues(self.queues).build().unwrap()
    }

    fn work(&self, driver: &mut Driver) {
        let data = pattern(0x3000, 7);
        assert_eq!(ask(driver, OUT, 100, &data, 0), (OK, 1));
        assert_eq!(ask(driver, FLUSH, 0, &[], 0).0, OK);
        driver.put(DATA, &[0; 0x3000]);
        assert_eq!(ask(driver, IN, 100, &[], 0x3000), (OK, 0x3001));
        assert!(driver.get(DATA, 0x3000) == data);
    }

    fn load(&self, driver: &mut Driver) {
        driver.put(HEADER, &header(IN, 0));
        for queue in 0..self.queues {
            for at in 0..u64::from(driver.queues[0].size) / 3 {
                let data = Seg::writable(DATA + 0x1_0000 * (at % 64), 0x8000);
                driver.offer(queue, &[Seg::readable(HEADER, 16), data, Seg::writable(STATUS, 1)]);
            }
            driver.kick(queue);
        }
    }
}

/// A test of each function for each engine.
macro_rules! engines {
    ($($test:ident),+ $(,)?) => {
        mod sync {
            $(#[test] fn $test() { super::$test(super::BlockEngine::Sync); })+
        }
        mod io_uring {
            $(#[test] fn $test() { super::$test(super::BlockEngine::IoUring); })+
        }
    };
}

engines!(
    data_goes_where_it_belongs,
    framing_is_free,
    nothing_lies_beyond_the_end,
    lengths_are_whole_sectors,
    unknown_requests_are_unsupported,
    the_serial_number_is_told,
    read_only_is_read_only,
    discards_give_room_back,
    zeroes_are_written,
    bad_ranges_are_refused,
    what_is_not_agreed_on_is_unsupported,
    chains_that_are_no_requests_break_the_queue,
    a_full_disk_is_an_error_of_the_request,
    a_file_that_shrinks_is_an_error_of_the_request,
    a_new_size_is_told,
    queues_work_at_once,
    a_turn_is_bounded_and_nothing_is_left,
    a_rate_limit_slows_and_completes,
    write_through_writes,
    a_disk_is_free_as_soon_as_its_device_has_ended,
    anything_the_driver_plays_is_survived,
    any_request_keeps_to_the_disk,
);

crate::conformance!(conformance_sync, Plain { engine: BlockEngine::Sync, queues: 1 });
crate::conformance!(conformance_sync_two_queues, Plain { engine: BlockEngine::Sync, queues: 2 });
crate::conformance!(conformance_io_uring, Plain { engine: BlockEngine::IoUring, queues: 1 });
crate::conformance!(conformance_io_uring_two_queues, Plain { engine: BlockEngine::IoUring, queues: 2 });

fn data_goes_where_it_belongs(engine: BlockEngine) {
    let file = image(1 << 20);
    let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).build().unwrap());
    let mut expected = vec![0xaa; 1 << 20];
    for (sector, len) in
        [(0usize, 512), (1, 512), (2047, 512), (3, 4096), (1000, 0x2_0000), (0, 1 << 20), (5, 0)]
    {
        let data = pattern(len, sector as u8);
        assert_eq!(ask(&mut driver, OUT, sector as u64, &data, 0), (OK, 1), "{sector} {len}");
        expected[sector * 512..sector * 512 + len].copy_from_slice(&data);
        driver.put(DATA, &vec![0; len]);
        let read = ask(&mut driver, IN, sector as u64, &[], len as u32);
        assert_eq!(read, (OK, len as u32 + 1), "{sector} {len}");
        assert!(driver.get(DATA, len) == data, "{sector} {len}");
    }
    assert!(fs::read(file.as_path()).unwrap() == expected);
    let counts = driver.bench.transport.counts()[0];
    assert_eq!((counts.chains, counts.errors, counts.throttled), (14, 0, 0));
    assert_eq!(counts.bytes, 2 * (3 * 512 + 4096 + 0x2_0000 + (1 << 20)));
    driver.bench.end();
}

/// Section 2.7.4: header, data and status may lie in any number of buffers, split anywhere.
fn framing_is_free(engine: BlockEngine) {
    let file = image(1 << 20);
    let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).build().unwrap());
    let data = pattern(1024, 3);
    for cuts in [&[][..], &[1], &[8, 9], &[15], &[16, 16], &[17], &[100, 101, 700], &[4, 8, 500, 528]] {
        let whole = [header(OUT, 9), data.clone()].concat();
        driver.put(DATA, &whole);
        let mut bounds = vec![0];
        bounds.extend(cuts);
        bounds.push(whole.len() as u32);
        let mut chain: Vec<_> = bounds
            .windows(2)
            .map(|bound| Seg::readable(DATA + u64::from(bound[0]), bound[1] - bound[0]))
            .collect();
        chain.push(Seg::writable(STATUS, 1));
        assert_eq!(driver.request(0, &chain), 1, "{cuts:?}");
        assert_eq!(driver.get(STATUS, 1), [OK], "{cuts:?}");

        // The status in the same buffer as the data, and empty buffers between.
        driver.put(HEADER, &header(IN, 9));
        driver.put(DATA, &[0; 1025]);
        let mut bounds = vec![0];
        bounds.extend(cuts);
        bounds.push(1025);
        let mut chain = vec![Seg::readable(HEADER, 16)];
        chain.extend(
            bounds.windows(2).map(|bound| Seg::writable(DATA + u64::from(bound[0]), bound[1] - bound[0])),
        );
        assert_eq!(driver.request(0, &chain), 1025, "{cuts:?}");
        assert!(driver.get(DATA, 1025) == [&data[..], &[OK]].concat(), "{cuts:?}");
    }
    // As many buffers as a request may have.
    driver.put(HEADER, &header(IN, 9));
    let mut chain = vec![Seg::readable(HEADER, 16)];
    chain.extend((0..254).map(|at| Seg::writable(DATA + 4 * at, if at == 253 { 12 } else { 4 })));
    chain.push(Seg::writable(STATUS, 1));
    assert_eq!(driver.request(0, &chain), 1025);
    driver.bench.end();
}

fn nothing_lies_beyond_the_end(engine: BlockEngine) {
    let file = image(64 << 10);
    let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).build().unwrap());
    for sector in [127, 128, 129, u64::MAX, u64::MAX / 512, u64::MAX / 512 + 1, 1 << 55, (1 << 55) - 1] {
        assert_eq!(ask(&mut driver, OUT, sector, &[1; 1024], 0), (IO_ERROR, 1), "{sector}");
        let (status, written) = ask(&mut driver, IN, sector, &[], 1024);
        assert_eq!((status, written), (IO_ERROR, 0), "{sector}");
        for kind in [DISCARD, WRITE_ZEROES] {
            assert_eq!(ask(&mut driver, kind, 0, &range(sector, 2, 0), 0).0, IO_ERROR, "{sector}");
        }
    }
    assert_eq!(ask(&mut driver, IN, 126, &[], 1024).0, OK);
    assert!(fs::read(file.as_path()).unwrap() == vec![0xaa; 64 << 10]);
    assert_eq!(driver.bench.transport.counts()[0].errors, 8 * 4);
    driver.bench.end();
}

fn lengths_are_whole_sectors(engine: BlockEngine) {
    let file = image(64 << 10);
    let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).build().unwrap());
    for len in [1, 511, 513, 1000] {
        assert_eq!(ask(&mut driver, OUT, 0, &vec![1; len], 0).0, IO_ERROR, "{len}");
        assert_eq!(ask(&mut driver, IN, 0, &[], len as u32).0, IO_ERROR, "{len}");
    }
    // More than one system call moves, though the disk had room for it.
    file.as_file().set_len(1 << 40).unwrap();
    driver.bench.transport.rescan();
    driver.until("the new size", |driver| driver.config(0, 8) == (1u64 << 31).to_le_bytes());
    driver.put(HEADER, &header(IN, 0));
    let mut chain = vec![Seg::readable(HEADER, 16)];
    chain.extend((0..250).map(|_| Seg::writable(DATA, 11 << 20)));
    chain.push(Seg::writable(STATUS, 1));
    driver.request(0, &chain);
    assert_eq!(driver.get(STATUS, 1), [IO_ERROR]);
    assert_eq!(driver.get(DATA, 512), [1; 512], "nothing was read");
    driver.bench.end();
}

fn unknown_requests_are_unsupported(engine: BlockEngine) {
    let file = image(64 << 10);
    let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).build().unwrap());
    for kind in [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 18, 20, 22, 24, 26, 0x100, 1 << 31, u32::MAX] {
        assert_eq!(ask(&mut driver, kind, 0, &[1; 512], 512).0, UNSUPPORTED, "{kind}");
    }
    assert_eq!(ask(&mut driver, IN, 0, &[], 512).0, OK);
    assert_eq!(driver.get(DATA, 512), [0xaa; 512]);
    driver.bench.end();
}

fn the_serial_number_is_told(engine: BlockEngine) {
    for serial in ["", "root", "exactly-20-bytes-are"] {
        let file = image(512);
        let block = Block::file(file.as_path()).engine(engine).serial(serial);
        let mut driver = Driver::started(block.build().unwrap());
        let mut expected = serial.as_bytes().to_vec();
        expected.resize(20, 0);
        assert_eq!(ask(&mut driver, GET_ID, 0, &[], 20), (OK, 21));
        assert_eq!(driver.get(DATA, 20), expected);
        driver.put(DATA, &[UNTOUCHED; 30]);
        assert_eq!(ask(&mut driver, GET_ID, 0, &[], 30), (OK, 20));
        assert_eq!(driver.get(DATA, 30), [&expected[..], &[UNTOUCHED; 10]].concat());
        assert_eq!(ask(&mut driver, GET_ID, 0, &[], 19).0, IO_ERROR);
        driver.bench.end();
    }
}

fn read_only_is_read_only(engine: BlockEngine) {
    let file = image(64 << 10);
    let block = || Block::file(file.as_path()).engine(engine).read_only(true).build().unwrap();
    let (mut driver, mut other) = (Driver::started(block()), Driver::started(block()));
    assert_eq!(driver.offered() & (1 << 5 | 1 << 9 | 1 << 11 | 1 << 13 | 1 << 14), 1 << 5);
    assert_eq!(ask(&mut driver, OUT, 0, &[1; 512], 0).0, IO_ERROR);
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(ask(&mut driver, kind, 0, &range(0, 1, 0), 0).0, UNSUPPORTED);
    }
    assert_eq!(ask(&mut driver, FLUSH, 0, &[], 0).0, OK);
    assert_eq!(ask(&mut driver, IN, 0, &[], 512), (OK, 513));
    assert_eq!(ask(&mut other, IN, 0, &[], 512), (OK, 513), "and another may read it, too");
    assert!(fs::read(file.as_path()).unwrap() == vec![0xaa; 64 << 10]);
    driver.bench.end();
    other.bench.end();
}

fn discards_give_room_back(engine: BlockEngine) {
    let file = image(1 << 20);
    let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).build().unwrap());
    let blocks = || fs::metadata(file.as_path()).unwrap().blocks();
    let before = blocks();
    let list = [range(0, 512, 0), range(1024, 0, 0), range(1024, 1024, 0)].concat();
    assert_eq!(ask(&mut driver, DISCARD, 0, &list, 0), (OK, 1));
    if before >= 2048 {
        assert_eq!(before - blocks(), 1536, "in units of 512 bytes");
    } else {
        println!("SKIPPED part of discards_give_room_back: the file system does not count blocks");
    }
    let mut expected = vec![0xaa; 1 << 20];
    expected[..512 * 512].fill(0);
    expected[1024 * 512..].fill(0);
    assert!(fs::read(file.as_path()).unwrap() == expected, "the rest is as it was, and so is the size");
    let most: Vec<u8> = (0..16).flat_map(|at| range(at * 2, 1, 0)).collect();
    assert_eq!(ask(&mut driver, DISCARD, 0, &most, 0).0, OK);
    driver.bench.end();
}

fn zeroes_are_written(engine: BlockEngine) {
    let file = image(1 << 20);
    let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).build().unwrap());
    let mut expected = vec![0xaa; 1 << 20];
    // Of odd sizes, so that pieces do not come out even; with and without leave to unmap.
    for (sector, sectors, flags) in
        [(1u32, 3, 0), (10, 777, 0), (1000, 1, 1), (1024, 512, 1), (2047, 1, 0), (7, 0, 1)]
    {
        let answer = ask(&mut driver, WRITE_ZEROES, 0, &range(sector.into(), sectors, flags), 0);
        assert_eq!(answer, (OK, 1), "{sector}");
        expected[sector as usize * 512..][..sectors as usize * 512].fill(0);
    }
    assert!(fs::read(file.as_path()).unwrap() == expected);
    driver.bench.end();
}

fn bad_ranges_are_refused(engine: BlockEngine) {
    let file = image(64 << 10);
    file.as_file().set_len(1 << 33).unwrap();
    let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).build().unwrap());
    let good = range(0, 1, 0);
    for (kind, list, status) in [
        (DISCARD, vec![], IO_ERROR),
        (DISCARD, good[..15].to_vec(), IO_ERROR),
        (DISCARD, [&good[..], &[0]].concat(), IO_ERROR),
        (DISCARD, good.repeat(17), IO_ERROR),
        (DISCARD, range(0, (1 << 22) + 1, 0), IO_ERROR),
        (DISCARD, range(0, 1, 1), UNSUPPORTED),
        (DISCARD, range(0, 1, 2), UNSUPPORTED),
        (DISCARD, [good.clone(), range(0, 1, 1 << 31)].concat(), UNSUPPORTED),
        (DISCARD, [good.clone(), range(1 << 24, 1, 0)].concat(), IO_ERROR),
        (WRITE_ZEROES, vec![], IO_ERROR),
        (WRITE_ZEROES, good.repeat(2), IO_ERROR),
        (WRITE_ZEROES, range(0, (1 << 16) + 1, 0), IO_ERROR),
        (WRITE_ZEROES, range(0, 1, 2), UNSUPPORTED),
        (WRITE_ZEROES, range(0, 1, 3), UNSUPPORTED),
    ] {
        assert_eq!(ask(&mut driver, kind, 0, &list, 0).0, status, "{kind} {list:?}");
    }
    let mut start = vec![0; 64 << 10];
    file.as_file().read_exact_at(&mut start, 0).unwrap();
    assert!(start == vec![0xaa; 64 << 10], "of a list that is refused, nothing is done");
    assert_eq!(ask(&mut driver, DISCARD, 0, &range(0, 1 << 22, 0), 0).0, OK);
    assert_eq!(ask(&mut driver, WRITE_ZEROES, 0, &range(1 << 23, 1 << 16, 1), 0).0, OK);
    driver.bench.end();
}

fn what_is_not_agreed_on_is_unsupported(engine: BlockEngine) {
    let file = image(64 << 10);
    let mut driver = Driver::new(Block::file(file.as_path()).engine(engine).build().unwrap());
    driver.start(0);
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(ask(&mut driver, kind, 0, &range(0, 1, 0), 0).0, UNSUPPORTED);
    }
    assert_eq!(ask(&mut driver, OUT, 0, &[1; 512], 0).0, OK);
    assert_eq!(ask(&mut driver, FLUSH, 0, &[], 0).0, OK);
    driver.bench.end();
}

fn chains_that_are_no_requests_break_the_queue(engine: BlockEngine) {
    let file = image(64 << 10);
    let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).build().unwrap());
    let (head, status) = (Seg::readable(HEADER, 16), Seg::writable(STATUS, 1));
    for chain in [
        &[head][..],
        &[head, Seg::readable(DATA, 512)],
        &[head, Seg::writable(DATA, 0)],
        &[Seg::readable(HEADER, 15), status],
        &[Seg::readable(HEADER, 0), status],
        &[status],
    ] {
        driver.start(u64::MAX);
        driver.put(HEADER, &header(IN, 0));
        driver.offer(0, chain);
        driver.kick(0);
        driver.wait_needs_reset();
        driver.start(u64::MAX);
        assert_eq!(ask(&mut driver, IN, 0, &[], 512).0, OK, "{chain:?}");
    }
    driver.bench.end();
}

/// A tmpfs of its own, unmounted when dropped.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "firecrest-test"])
            .arg(dir.as_path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(dir))
    }

    fn path(&self) -> PathBuf {
        self.0.as_path().join("disk")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.as_path()).status();
    }
}

fn a_full_disk_is_an_error_of_the_request(engine: BlockEngine) {
    let Some(tmpfs) = Tmpfs::mount("64k") else {
        println!("SKIPPED a_full_disk_is_an_error_of_the_request: no tmpfs can be mounted here");
        return;
    };
    let path = tmpfs.path();
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let mut driver = Driver::started(Block::file(&path).engine(engine).build().unwrap());
    let data = pattern(32 << 10, 1);
    assert_eq!(ask(&mut driver, OUT, 0, &data, 0).0, OK);
    assert_eq!(ask(&mut driver, FLUSH, 0, &[], 0).0, OK);
    assert_eq!(ask(&mut driver, OUT, 512, &vec![2; 256 << 10], 0), (IO_ERROR, 1));
    assert_eq!(ask(&mut driver, WRITE_ZEROES, 0, &range(1024, 1024, 0), 0).0, IO_ERROR);
    assert_eq!(driver.bench.transport.counts()[0].errors, 2);
    // What was flushed is there, and with room again the disk works again.
    assert_eq!(ask(&mut driver, IN, 0, &[], 32 << 10).0, OK);
    assert!(driver.get(DATA, 32 << 10) == data);
    assert_eq!(ask(&mut driver, DISCARD, 0, &range(512, 1536, 0), 0).0, OK);
    assert_eq!(ask(&mut driver, OUT, 512, &[3; 4096], 0).0, OK);
    driver.bench.end();
}

fn a_file_that_shrinks_is_an_error_of_the_request(engine: BlockEngine) {
    let file = image(64 << 10);
    let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).build().unwrap());
    file.as_file().set_len(1024).unwrap();
    assert_eq!(ask(&mut driver, IN, 0, &[], 1024).0, OK);
    assert_eq!(ask(&mut driver, IN, 1, &[], 1024), (IO_ERROR, 512), "the first half of it was there");
    assert_eq!(ask(&mut driver, IN, 64, &[], 512), (IO_ERROR, 0));
    driver.bench.end();
}

fn a_new_size_is_told(engine: BlockEngine) {
    let file = image(64 << 10);
    let block = Block::file(file.as_path()).engine(engine).queues(2).block_size(4096);
    let mut driver = Driver::started(block.build().unwrap());
    let capacity = |driver: &Driver| u64::from_le_bytes(driver.config(0, 8).try_into().unwrap());
    assert_eq!(capacity(&driver), 128);
    for (len, sectors) in [(128 << 10, 256u64), (16 << 10, 32), (16 << 10 | 512, 32), (1 << 20, 2048)] {
        let edges = driver.bench.edges();
        let changes = capacity(&driver) != sectors;
        file.as_file().set_len(len).unwrap();
        driver.write(0x064, 3);
        driver.bench.transport.rescan();
        driver.until("the new capacity", |driver| capacity(driver) == sectors);
        if changes {
            driver
                .until("an interrupt", |driver| driver.read(0x060) & 2 != 0 && driver.bench.edges() > edges);
        }
        assert_eq!(ask(&mut driver, IN, sectors - 1, &[], 512).0, OK);
        assert_eq!(ask(&mut driver, IN, sectors, &[], 512).0, IO_ERROR);
    }
    // While nobody drives it: told as soon as somebody does.
    driver.reset();
    file.as_file().set_len(4096).unwrap();
    driver.bench.transport.rescan();
    driver.start(u64::MAX);
    driver.until("the new capacity", |driver| capacity(driver) == 8);
    driver.bench.end();
}

fn queues_work_at_once(engine: BlockEngine) {
    let file = image(4 << 20);
    let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).queues(4).build().unwrap());
    assert_eq!(driver.config(34, 2), [4, 0]);
    let place = |queue: u16, at: u64| BUFFERS + 0x10_0000 * u64::from(queue) + 0x2000 * at;
    for round in 0..30u64 {
        for queue in 0..4u16 {
            for at in 0..16u64 {
                let (kind, place) = (if round % 2 == 0 { OUT } else { IN }, place(queue, at));
                driver.put(place, &header(kind, 2048 * u64::from(queue) + 8 * at));
                driver.put(place + 0x800, &[UNTOUCHED]);
                let (head, status) = (Seg::readable(place, 16), Seg::writable(place + 0x800, 1));
                let data = pattern(4096, (round / 2) as u8 ^ queue as u8 ^ at as u8);
                if kind == OUT {
                    driver.put(place + 0x1000, &data);
                    driver.offer(queue, &[head, Seg::readable(place + 0x1000, 4096), status]);
                } else {
                    driver.put(place + 0x1000, &[0; 4096]);
                    driver.offer(queue, &[head, Seg::writable(place + 0x1000, 4096), status]);
                }
            }
        }
        (0..4).for_each(|queue| driver.kick(queue));
        for queue in 0..4u16 {
            (0..16).for_each(|_| _ = driver.wait_used(queue));
            for at in 0..16u64 {
                let data = pattern(4096, (round / 2) as u8 ^ queue as u8 ^ at as u8);
                assert_eq!(driver.get(place(queue, at) + 0x800, 1), [OK]);
                assert!(driver.get(place(queue, at) + 0x1000, 4096) == data, "{round} {queue} {at}");
            }
        }
    }
    let counts = driver.bench.transport.counts();
    assert!(counts.iter().all(|counts| (counts.chains, counts.errors) == (480, 0)), "{counts:?}");
    driver.bench.end();
}

fn a_turn_is_bounded_and_nothing_is_left(engine: BlockEngine) {
    let file = image(64 << 10);
    let mut driver = Driver::new(Block::file(file.as_path()).engine(engine).build().unwrap());
    driver.queues[0].size = 4;
    driver.start(u64::MAX);
    driver.put(HEADER, &header(IN, 0));
    // One chain made available four times fills a turn, again and again.
    let chain = [Seg::readable(HEADER, 16), Seg::writable(DATA, 512), Seg::writable(STATUS, 1)];
    let head = driver.offer(0, &chain);
    (0..3).for_each(|_| driver.publish(0, head));
    driver.kick(0);
    for _ in 0..1000 {
        driver.wait_used(0);
        driver.publish(0, head);
        driver.kick(0);
    }
    (0..4).for_each(|_| _ = driver.wait_used(0));
    assert_eq!(driver.bench.transport.counts()[0].chains, 1004);
    driver.bench.end();
}

fn a_rate_limit_slows_and_completes(engine: BlockEngine) {
    let bucket = |size, refill| Some(Bucket { size, refill: Duration::from_millis(refill), burst: 0 });
    for limit in [
        RateLimit { operations: bucket(4, 20), bytes: None },
        RateLimit { bytes: bucket(16 << 10, 20), operations: None },
        // Each request is more than the bucket holds.
        RateLimit { bytes: bucket(512, 2), operations: bucket(1000, 1) },
    ] {
        let file = image(64 << 10);
        let block = Block::file(file.as_path()).engine(engine).queues(2).rate_limit(limit);
        let mut driver = Driver::started(block.build().unwrap());
        driver.put(HEADER, &header(IN, 0));
        let chain = [Seg::readable(HEADER, 16), Seg::writable(DATA, 4096), Seg::writable(STATUS, 1)];
        for queue in [0, 1] {
            (0..10).for_each(|_| _ = driver.offer(queue, &chain));
            driver.kick(queue);
        }
        for queue in [0, 1] {
            (0..10).for_each(|_| _ = driver.wait_used(queue));
        }
        let counts = driver.bench.transport.counts();
        assert_eq!((counts[0].chains, counts[1].chains), (10, 10), "those put back are not counted");
        assert!(counts[0].throttled + counts[1].throttled > 0, "{limit:?}: {counts:?}");
        // Reset while it waits, and up again.
        (0..10).for_each(|_| _ = driver.offer(0, &chain));
        driver.kick(0);
        driver.start(u64::MAX);
        assert_eq!(ask(&mut driver, IN, 0, &[], 512).0, OK);
        driver.bench.end();
    }
}

fn write_through_writes(engine: BlockEngine) {
    let file = image(64 << 10);
    let block = Block::file(file.as_path()).engine(engine).cache(Cache::Writethrough);
    let mut driver = Driver::started(block.build().unwrap());
    assert_eq!(driver.config(32, 1), [0]);
    for byte in [0, 1, 0xff] {
        driver.bench.transport.write(0x120, &[byte]);
        assert_eq!(driver.config(32, 1), [byte]);
        let data = pattern(8192, byte);
        assert_eq!(ask(&mut driver, OUT, 0, &data, 0), (OK, 1));
        assert_eq!(ask(&mut driver, DISCARD, 0, &range(64, 8, 0), 0), (OK, 1));
        assert_eq!(ask(&mut driver, WRITE_ZEROES, 0, &range(72, 8, 0), 0), (OK, 1));
        assert!(fs::read(file.as_path()).unwrap()[..8192] == data);
    }
    driver.bench.end();
}

fn a_disk_is_free_as_soon_as_its_device_has_ended(engine: BlockEngine) {
    let file = image(64 << 10);
    for _ in 0..50 {
        let mut driver = Driver::started(Block::file(file.as_path()).engine(engine).build().unwrap());
        assert_eq!(ask(&mut driver, IN, 0, &[], 512).0, OK);
        driver.bench.end();
    }
}

fn anything_the_driver_plays_is_survived(engine: BlockEngine) {
    let config = ProptestConfig { cases: 48, ..ProptestConfig::default() };
    proptest!(config, |(script in prop::collection::vec(any::<u8>(), 0..600), queues in 1u16..3)| {
        let file = image(64 << 10);
        play(Block::file(file.as_path()).engine(engine).queues(queues).build().unwrap(), &script);
        prop_assert_eq!(fs::metadata(file.as_path()).unwrap().len(), 64 << 10);
    });
}

/// Whatever a well-formed chain says, it has a status, and the file keeps its size; where it is a failure
/// that the device saw beforehand, the file keeps its bytes.
fn any_request_keeps_to_the_disk(engine: BlockEngine) {
    let file = image(64 << 10);
    let block = Block::file(file.as_path()).engine(engine);
    let driver = RefCell::new(Driver::started(block.build().unwrap()));
    let kind = prop_oneof![0u32..28, any::<u32>()];
    let sector = prop_oneof![0u64..140, any::<u64>()];
    let config = ProptestConfig { cases: 300, ..ProptestConfig::default() };
    proptest!(config, |(kind in kind, sector in sector, body in prop::collection::vec(any::<u8>(), 0..48),
                        sectors in 0u32..4, odd in any::<bool>(), room in 0u32..1100)| {
        let len = if odd { body.len() } else { sectors as usize * 512 };
        let mut out = body;
        out.resize(len, 0x11);
        let before = fs::read(file.as_path()).unwrap();
        let (status, written) = ask(&mut driver.borrow_mut(), kind, sector, &out, room);
        prop_assert!(status <= UNSUPPORTED, "{status}");
        prop_assert!(written <= room + 1);
        let after = fs::read(file.as_path()).unwrap();
        prop_assert_eq!(before.len(), after.len());
        if status != OK {
            prop_assert!(before == after);
        }
    });
    driver.into_inner().bench.end();
}

#[test]
fn the_configuration_is_as_the_standard_lays_it_out() {
    let file = image(64 << 10);
    let driver = Driver::new(Block::file(file.as_path()).queues(3).block_size(512).build().unwrap());
    let config = driver.config(0, 60);
    let word = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(4)), (128, 0), "capacity");
    assert_eq!((word(8), word(12), word(16), word(20)), (0, 254, 0, 512));
    let physical = fs::metadata(file.as_path()).unwrap().blksize() as u32;
    assert_eq!(512u32 << config[24], physical.min(64 << 10));
    assert_eq!((config[25], config[32], config[33], &config[34..36]), (0, 1, 0, &[3, 0][..]));
    assert_eq!((word(36), word(40), word(44)), (1 << 22, 16, 1), "discard");
    assert_eq!((word(48), word(52), config[56]), (1 << 16, 1, 1), "write zeroes");
    driver.bench.end();
}
