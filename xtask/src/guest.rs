//! The guest initramfs: busybox, an init of our own, and the scripts tests bring along. `rootfs` has them on a disk.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cpio::Archive;
use crate::error::{Error, Result};
use crate::{args, cache, cargo, debian_kernel, files, kernel, packages, process, rootfs};

const HELP: &str = "\
Builds the guest's initramfs and root file system and makes sure of its kernels; prints their paths as NAME=PATH lines.

Usage: cargo xtask guest

The initramfs is an uncompressed cpio with busybox: it spares the guest the inflating. The root file system is an ext4
image with the tools of the device tests besides. Their init is one and understands, on the kernel's command line:

  fc.run=NAME       run /run/NAME, a copy of tests/guest/NAME, then power off
  fc.do=WORD,...    do these in order:
                      report    print `FC cpus=`, `FC memtotal_kib=`, `FC clocksource=`, `FC cmdline=`, `FC initrd=ok`
                      clock     print `FC tick UPTIME EPOCH-SECONDS` every 100 ms for 6 s, then power off
                      echo      print `FC got LINE` for each line typed, until `quit`, then power off
                      idle      sleep for ever
                      spin      keep one CPU busy for ever
                      shell     a shell on the console
                      poweroff, reboot, halt, panic

Without either: a shell on the console, and power-off when it ends.
";

/// Where busybox-static puts it.
pub const BUSYBOX: &str = "/bin/busybox";
/// PID 1, in the initramfs and on the root file system.
pub const INIT: &str = include_str!("guest-init.sh");

pub fn command(parser: lexopt::Parser) -> Result<u8> {
    if args::only_help(parser, HELP)? {
        return Ok(0);
    }
    let initramfs = ensure()?;
    let rootfs = rootfs::ensure()?;
    let kernel = kernel::ensure()?;
    let debian = debian_kernel::ensure()?;
    println!("FIRECREST_GUEST_VMLINUX={}", kernel.vmlinux.display());
    println!("FIRECREST_GUEST_BZIMAGE={}", kernel.bzimage.display());
    println!("FIRECREST_GUEST_DEBIAN={}", debian.vmlinuz.display());
    println!("FIRECREST_GUEST_INITRD={}", initramfs.display());
    println!("FIRECREST_GUEST_ROOTFS={}", rootfs.display());
    Ok(0)
}

/// The initramfs, built if it is not in the cache.
pub fn ensure() -> Result<PathBuf> {
    packages::ensure(packages::GUEST)?;
    let mut archive = Archive::new();
    busybox(&mut archive)?;
    for directory in ["proc", "sys", "dev", "run", "tmp", "root", "mnt"] {
        archive.directory(directory);
    }
    // The kernel opens it before init runs.
    archive.character_device("dev/console", 5, 1);
    archive.file("init", 0o755, INIT.as_bytes())?;
    for script in files::in_directory(&cargo::workspace().join("tests/guest"))? {
        let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.copy(&format!("run/{name}"), &script)?;
    }
    let bytes = archive.finish();
    let entry = cache::entry("guest", &cache::Key::of(&[&bytes]), |directory| {
        let path = directory.join("guest.cpio");
        fs::write(&path, &bytes).map_err(|error| Error::io("write", &path, &error))
    })?;
    Ok(entry.join("guest.cpio"))
}

/// Busybox under `/bin`, with a link for each of its programs.
pub fn busybox(archive: &mut Archive) -> Result<()> {
    archive.copy("bin/busybox", Path::new(BUSYBOX))?;
    for program in busybox_programs()?.lines().filter(|program| *program != "busybox") {
        archive.symlink(&format!("bin/{program}"), "busybox");
    }
    Ok(())
}

/// The names of the programs busybox is, a line each.
pub fn busybox_programs() -> Result<String> {
    process::output(std::process::Command::new(BUSYBOX).arg("--list"))
}
