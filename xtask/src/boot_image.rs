//! The initramfs of the boot benchmark and of the boot's budgets: an uncompressed archive of 1 MiB with a PID 1 that marks
//! the moment and ends the run (`benches/boot/init.S`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::cpio::Archive;
use crate::error::{Error, Result};
use crate::{cache, cargo, process};

/// The script that measures a boot, in the lab.
pub const MEASURE: &str = "benches/boot/measure.sh";

/// The command line of a boot that says nothing and ends by itself.
pub const QUIET: &str = "quiet loglevel=0 8250.nr_uarts=0 reboot=t panic=-1";

/// What is added to it for a monitor that starts its guest again when that resets itself: the word is for init.
pub const POWER_OFF: &str = " poweroff";

/// The archive's size, but for its headers.
const SIZE: usize = 1 << 20;

/// The initramfs, built if it is not in the cache.
pub fn ensure() -> Result<PathBuf> {
    let scratch = cache::Scratch::new("boot-image")?;
    let init = scratch.path().join("init");
    let mut command = Command::new("cc");
    command.current_dir(cargo::workspace());
    command
        .args(["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "benches/boot/init.S", "-o"])
        .arg(&init);
    process::run(&mut command)?;
    let init = fs::read(&init).map_err(|error| Error::io("read", &init, &error))?;
    let mut archive = Archive::new();
    // The kernel opens it before init runs.
    archive.character_device("dev/console", 5, 1);
    archive.file("init", 0o755, &init)?;
    archive.file("data", 0o644, &data(SIZE.saturating_sub(init.len())))?;
    let bytes = archive.finish();
    let entry = cache::entry("boot", &cache::Key::of(&[&bytes]), |directory| {
        let path = directory.join("boot.cpio");
        fs::write(&path, &bytes).map_err(|error| Error::io("write", &path, &error))
    })?;
    Ok(entry.join("boot.cpio"))
}

/// Bytes without a pattern, the same each time.
fn data(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32).to_le_bytes()
    });
    words.flat_map(|word| word.into_iter().take(4)).take(length).collect()
}
