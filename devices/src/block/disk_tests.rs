use vmm_sys_util::tempfile::TempFile;

use super::*;

fn disk(cache: Cache, writeback: u8) -> Disk {
    Disk {
        file: TempFile::new().unwrap().into_file(),
        read_only: false,
        block_size: 512,
        serial: [0; SERIAL_LEN],
        cache,
        writeback: Arc::new(AtomicU8::new(writeback)),
        size: AtomicU64::new(0),
    }
}

/// The three cases of section 5.2.6.2.
#[test]
fn writes_are_as_durable_as_was_agreed() {
    use Cache::{Writeback, Writethrough};
    let (flush, wce) = (feature::FLUSH, feature::CONFIG_WCE);
    for (features, cache, byte, write_through) in [
        // The driver knows neither how to flush nor how to choose.
        (0, Writeback, 1, true),
        (0, Writethrough, 0, true),
        // It can flush, and has no choice.
        (flush, Writeback, 1, false),
        (flush, Writethrough, 0, true),
        (flush, Writeback, 0, false),
        // It has chosen.
        (wce, Writeback, 0, true),
        (wce, Writethrough, 1, false),
        (flush | wce, Writeback, 0, true),
        (flush | wce, Writeback, 1, false),
        (flush | wce, Writethrough, 0xff, false),
    ] {
        let what = format!("{features:#x} {cache:?} {byte}");
        assert_eq!(disk(cache, byte).is_write_through(features), write_through, "{what}");
    }
}
