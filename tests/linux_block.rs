//! Linux guests and their disks: the kernel's own driver, a real file system, and what the host finds in its files.
//!
//! What a guest does is in `tests/guest/block_*.sh`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use firecrest_vmm::{Block, BlockEngine, Cache};
use support::disk::{Disk, MIB, SmallTmpfs};
use support::guest::{self, ROOTFS};
use support::process;

/// How much fio lays out for each of its two jobs. It reads and writes all of it in random pieces, and verifies it.
const FIO_MIB: u64 = 24;

#[test]
fn linux_boots_from_a_disk_and_leaves_it_clean() {
    let disk = Disk::copy("root", guest::file(ROOTFS));
    let guest = guest::start_from(Block::file(disk.path()), "rw", "block_root", "", |builder| builder);
    guest.finish();
    assert!(guest.said("root").starts_with("/dev/root / ext4 rw"), "{}", guest.said("root"));
    assert_eq!(guest.number("sectors") * 512, std::fs::metadata(disk.path()).unwrap().len());
    disk.assert_clean();
    disk.assert_file_pattern("/written", 8 * MIB, 1);
}

#[test]
fn fio_verifies_what_it_wrote_sync() {
    fio(BlockEngine::Sync, 1);
}

#[test]
fn fio_verifies_what_it_wrote_io_uring() {
    fio(BlockEngine::IoUring, 2);
}

/// Random reads and writes of 4 KiB to 1 MiB on a file system, each block verified, and the file system in order
/// afterwards for those who did not write it.
fn fio(engine: BlockEngine, queues: u16) {
    let disk = Disk::empty(&format!("fio-{engine:?}"), 256 * MIB);
    let guest = guest::start("block_fio", &format!("fc.mib={FIO_MIB}"), |builder| {
        builder.block(Block::file(disk.path()).engine(engine).queues(queues))
    });
    let descriptors = guest.at("worked", process::descriptors);
    guest.finish();
    // Had the engine not been what was asked for, all of this would have worked just as well.
    let ring = descriptors.iter().any(|(_, target)| target.to_string_lossy().contains("[io_uring]"));
    assert_eq!(ring, engine == BlockEngine::IoUring, "{descriptors:?}");
    assert_eq!(guest.number("fio_error"), 0);
    // All of both jobs' files is read or written once, and what was written is read again.
    let (read, written) = (guest.number("fio_read_kib"), guest.number("fio_written_kib"));
    assert!(written > FIO_MIB << 8 && read >= (2 * FIO_MIB) << 10, "read {read} KiB, wrote {written} KiB");
    disk.assert_clean();
    disk.assert_file_pattern("/pattern", 8 * MIB, 2);
    let counted = &guest.running.stats().devices[1].queues;
    assert_eq!(counted.len(), usize::from(queues));
    let bytes: u64 = counted.iter().map(|queue| queue.bytes).sum();
    assert!(bytes >= (read + written) << 10, "{counted:?}");
    assert!(counted.iter().all(|queue| queue.chains > 0 && queue.errors == 0), "{counted:?}");
}

#[test]
fn a_disk_is_what_it_was_described_as() {
    let writable = Disk::empty("writable", 96 * MIB);
    let read_only = Disk::pattern("read-only", 8 * MIB, 3);
    let discarded = Disk::pattern("discarded", 64 * MIB, 4);
    let guest = guest::start("block_shape", "", |builder| {
        let described = Block::file(writable.path()).serial("fc-data").block_size(4096).queues(2);
        builder
            .block(described.engine(BlockEngine::IoUring).cache(Cache::Writeback))
            .block(Block::file(read_only.path()).read_only(true).cache(Cache::Writethrough))
            .block(Block::file(discarded.path()))
    });
    let filled = guest.at("filled", || writable.allocated());
    let trimmed = guest.at("trimmed", || writable.allocated());
    guest.finish();

    for (name, value) in [
        ("vdb.serial", "fc-data"),
        ("vdb.ro", "0"),
        ("vdb.block_size", "4096"),
        ("vdb.sectors", "196608"),
        ("vdb.queues", "2"),
        ("vdb.cache", "write back"),
        ("vdb.can_discard", "yes"),
        ("vdc.serial", ""),
        ("vdc.ro", "1"),
        ("vdc.block_size", "512"),
        ("vdc.sectors", "16384"),
        ("vdc.queues", "1"),
        ("vdc.cache", "write through"),
        ("readonly", "ok"),
        ("discarded", "ok"),
        ("rebound", "fc-data"),
    ] {
        assert_eq!(guest.said(name), value, "{name}");
    }
    assert!(filled >= 32 * MIB, "a file of 32 MiB took {filled} bytes of the host");
    assert!(trimmed + 30 * MIB <= filled, "of {filled} bytes, {trimmed} are left after fstrim");

    read_only.assert_pattern(0, 8 * MIB, 3);
    // 32 MiB were discarded; 4 MiB more were zeroed, which may take room or not.
    assert!(discarded.allocated() <= 32 * MIB, "{} bytes after discarding half", discarded.allocated());
    discarded.assert_pattern(0, 16 * MIB, 4);
    discarded.assert_pattern(48 * MIB, 8 * MIB, 4);
    discarded.assert_pattern(60 * MIB, 4 * MIB, 4);
    writable.assert_pattern(0, 4 * MIB, 13);
}

#[test]
fn a_disk_grows_is_cut_short_and_fills_its_host() {
    let growing = Disk::pattern("growing", 32 * MIB, 6);
    let host = SmallTmpfs::new("full", 8 * MIB);
    let full = Disk::empty_in(host.path(), "full", 32 * MIB);
    let cut = Disk::pattern("cut", 8 * MIB, 9);
    let guest = guest::start("block_faults", "", |builder| {
        builder
            .block(Block::file(growing.path()))
            .block(Block::file(full.path()).engine(BlockEngine::IoUring))
            .block(Block::file(cut.path()))
    });
    guest.at("grow", || {
        growing.resize(64 * MIB);
        guest.running.rescan();
    });
    // Behind the monitor's back.
    guest.at("cut", || cut.resize(4 * MIB));
    guest.finish();

    assert_eq!(guest.number("sectors_before") * 512, 32 * MIB);
    assert_eq!(guest.number("sectors_after") * 512, 64 * MIB);
    growing.assert_pattern(0, 64 * MIB, 6);
    assert!(guest.said("full").contains("Input/output error"), "{}", guest.said("full"));
    full.assert_pattern(0, 4 * MIB, 7);
    assert!(guest.said("cut").contains("Input/output error"), "{}", guest.said("cut"));
    cut.assert_pattern(0, 4 * MIB, 9);
}
