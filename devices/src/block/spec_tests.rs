use std::error::Error;
use std::process::Command;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::tempdir::TempDir;
use vmm_sys_util::tempfile::TempFile;

use std::sync::Mutex;

use super::*;
use crate::rate_limit::Bucket;
use crate::testing::{BUFFERS, Driver, Seg};

fn file(len: u64) -> TempFile {
    let file = TempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    file
}

fn refused(block: Block) -> BlockError {
    block.build().unwrap_err()
}

#[test]
fn what_was_said_is_checked_before_the_file_is_opened() {
    let block = || Block::file("/does/not/exist");
    let text = |block| refused(block).to_string();
    assert_eq!(text(block().queues(0)), "0 queues are not between 1 and 16");
    assert_eq!(text(block().queues(17)), "17 queues are not between 1 and 16");
    for block_size in [0, 1, 511, 513, 1024, 2048, 4095, 8192, u32::MAX] {
        let expected = format!("a block size of {block_size} is neither 512 nor 4096");
        assert_eq!(text(block().block_size(block_size)), expected);
    }
    assert_eq!(
        text(block().serial("twenty-one-bytes-long")),
        "the serial number \"twenty-one-bytes-long\" has 21 bytes, more than 20"
    );
    assert!(
        matches!(refused(block().serial("é".repeat(11))), BlockError::Serial { .. }),
        "bytes, not letters"
    );
    let nothing = Bucket { size: 0, refill: Duration::from_secs(1), burst: 0 };
    let error = refused(block().rate_limit(RateLimit { bytes: Some(nothing), operations: None }));
    assert_eq!(error.to_string(), "the disk /does/not/exist cannot have its rate limit");
    assert!(error.source().unwrap().to_string().contains("neither may be zero"));
    let error = refused(block());
    assert_eq!(error.to_string(), "cannot open the disk /does/not/exist");
    assert!(error.source().is_some());
}

#[test]
fn only_files_and_block_devices_are_disks() {
    let dir = TempDir::new().unwrap();
    for path in [dir.as_path(), Path::new("/dev/null")] {
        let error = refused(Block::file(path));
        assert_eq!(
            error.to_string(),
            format!("{} is neither a regular file nor a block device", path.display())
        );
    }
    // To open it would wait for a writer.
    let fifo = dir.as_path().join("fifo");
    if Command::new("mkfifo").arg(&fifo).status().is_ok_and(|status| status.success()) {
        assert!(matches!(refused(Block::file(&fifo).read_only(true)), BlockError::Type { .. }));
    } else {
        println!("SKIPPED part of only_files_and_block_devices_are_disks: no mkfifo here");
    }
}

#[test]
fn sizes_are_whole_blocks() {
    for (len, block_size) in [(0, 512), (511, 512), (512, 4096), (4095, 4096)] {
        let file = file(len);
        let error = refused(Block::file(file.as_path()).block_size(block_size));
        let path = file.as_path().display();
        let expected = format!("the disk {path} has {len} bytes, less than one block of {block_size}");
        assert_eq!(error.to_string(), expected);
    }
    for (len, block_size) in [(513, 512), (4096 + 512, 4096), (1025, 512)] {
        let file = file(len);
        let error = refused(Block::file(file.as_path()).block_size(block_size));
        let path = file.as_path().display();
        let expected =
            format!("the disk {path} has {len} bytes, no multiple of its block size {block_size}: pad it");
        assert_eq!(error.to_string(), expected);
    }
    for (len, block_size) in [(512, 512), (4096, 4096), (1 << 42, 4096)] {
        let file = file(len);
        let device = Block::file(file.as_path()).block_size(block_size).build().unwrap();
        assert_eq!(device.config[..8], (len / 512).to_le_bytes());
        assert_eq!(device.config[20..24], block_size.to_le_bytes());
    }
}

#[test]
fn a_disk_has_one_writer_or_any_number_of_readers() {
    let file = file(4096);
    let block = || Block::file(file.as_path());
    let writer = block().build().unwrap();
    let error = refused(block());
    assert_eq!(error.to_string(), format!("the disk {} is locked by another", file.as_path().display()));
    assert!(matches!(refused(block().read_only(true)), BlockError::Locked { .. }));
    drop(writer);
    let readers = [block().read_only(true).build().unwrap(), block().read_only(true).build().unwrap()];
    assert!(matches!(refused(block()), BlockError::Locked { .. }));
    drop(readers);
    block().build().unwrap();
}

#[test]
fn a_file_that_may_not_be_written_can_be_read() {
    let file = file(4096);
    let mut permissions = file.as_file().metadata().unwrap().permissions();
    permissions.set_readonly(true);
    file.as_file().set_permissions(permissions).unwrap();
    if OpenOptions::new().write(true).open(file.as_path()).is_ok() {
        println!("SKIPPED part of a_file_that_may_not_be_written_can_be_read: this user may write all files");
    } else {
        assert!(matches!(refused(Block::file(file.as_path())), BlockError::Open { .. }));
    }
    Block::file(file.as_path()).read_only(true).build().unwrap();
}

#[test]
fn queues_have_cards() {
    let file = file(4096);
    for queues in [1, 2, 16] {
        let device = Block::file(file.as_path()).queues(queues).build().unwrap();
        assert_eq!(device.queue_sizes, vec![QUEUE_SIZE; queues.into()]);
        let of_cards: Vec<_> = device.cards.iter().flat_map(|(queues, _)| queues.clone()).collect();
        assert_eq!(of_cards, (0..queues).collect::<Vec<_>>());
        assert_eq!(device.features & feature::MULTI_QUEUE != 0, queues > 1);
        assert_eq!(device.config[34..36], queues.to_le_bytes());
    }
}

#[test]
fn a_block_device_is_a_disk() {
    let file = file(1 << 20);
    let Some(device) = LoopDevice::new(file.as_path()) else {
        println!("SKIPPED a_block_device_is_a_disk: no loop device here");
        return;
    };
    for engine in [BlockEngine::Sync, BlockEngine::IoUring] {
        let block = || Block::file(&device.0).engine(engine);
        let mut driver = Driver::new(block().build().unwrap());
        assert_eq!(driver.config(0, 8), 2048u64.to_le_bytes());
        assert!(matches!(refused(block()), BlockError::Locked { .. }));
        driver.start(u64::MAX);
        let (head, status) = (Seg::readable(BUFFERS, 16), Seg::writable(BUFFERS + 16, 1));
        let data = BUFFERS + 0x1000;
        // Written, flushed, zeroed in part, discarded in part, read.
        let range = |sector: u8| [&[sector, 0, 0, 0, 0, 0, 0, 0, 8][..], &[0; 7]].concat();
        for (kind, sector, body) in
            [(1, 0, vec![0x5a; 0x4000]), (4, 0, vec![]), (13, 0, range(8)), (11, 0, range(16))]
        {
            driver.put(BUFFERS, &[&[kind, 0, 0, 0, 0, 0, 0, 0, sector][..], &[0; 7], &[0xee]].concat());
            driver.put(data, &body);
            driver.request(0, &[head, Seg::readable(data, u32::try_from(body.len()).unwrap()), status]);
            assert_eq!(driver.get(BUFFERS + 16, 1), [0], "request {kind}");
        }
        driver.put(BUFFERS, &[0; 16]);
        driver.request(0, &[head, Seg::writable(data, 0x4000), status]);
        assert_eq!(driver.get(BUFFERS + 16, 1), [0]);
        let read = driver.get(data, 0x4000);
        assert!(read[..0x1000] == [0x5a; 0x1000] && read[0x3000..] == [0x5a; 0x1000]);
        assert!(read[0x1000..0x2000] == [0; 0x1000]);
        driver.bench.end();
    }
}

/// The host's device says EIO, as one that is broken would: behind it, its file is gone.
#[test]
fn an_error_of_the_host_is_an_error_of_the_request() {
    for engine in [BlockEngine::Sync, BlockEngine::IoUring] {
        let file = file(1 << 20);
        let Some(device) = LoopDevice::new(file.as_path()) else {
            println!("SKIPPED an_error_of_the_host_is_an_error_of_the_request: no loop device here");
            return;
        };
        let mut driver = Driver::started(Block::file(&device.0).engine(engine).build().unwrap());
        let read = |driver: &mut Driver, sector: u16| {
            let [low, high] = sector.to_le_bytes();
            driver.put(BUFFERS, &[&[0; 8][..], &[low, high, 0, 0, 0, 0, 0, 0, 0xee]].concat());
            let (head, status) = (Seg::readable(BUFFERS, 16), Seg::writable(BUFFERS + 16, 1));
            driver.request(0, &[head, Seg::writable(BUFFERS + 0x1000, 0x1000), status]);
            driver.get(BUFFERS + 16, 1)
        };
        assert_eq!(read(&mut driver, 0), [0], "{engine:?}");
        file.as_file().set_len(0).unwrap();
        // Far from what was read, which the host still has in memory.
        assert_eq!(read(&mut driver, 1536), [1], "{engine:?}");
        assert_eq!(read(&mut driver, 0), [0], "{engine:?}: the device goes on");
        let counts = driver.bench.transport.counts();
        assert_eq!(counts[0].errors, 1, "{engine:?}");
        driver.bench.end();
    }
}

/// A file as a block device; until it is dropped. One at a time: which one is free is asked and taken in two steps,
/// as not every losetup does it in one.
struct LoopDevice(String, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl LoopDevice {
    fn new(file: &Path) -> Option<Self> {
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let output = Command::new("losetup").arg("-f").output().ok()?;
        let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        let made = Command::new("losetup").arg(&path).arg(file).output().ok()?;
        (!path.is_empty() && made.status.success()).then_some(Self(path, one))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}
