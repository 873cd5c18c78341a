//! Budgets of SPECIFICATION.md that need neither a clock nor a Linux guest: memory of the release program, lines of code.
//!
//! `FIRECREST_BIN` names the program; `cargo xtask test` builds it and sets that.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::budget::{number, within};
use support::net::{in_a_namespace, tap};
use support::{Scratch, elf, guests};

/// An odd size, by which the guest's memory is found among the process's mappings.
const GUEST_MIB: u64 = 97;

/// From the guest's first byte until the monitor has come to rest.
const SETTLE: Duration = Duration::from_millis(500);

/// A running program, killed when dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A mapping of /proc/PID/smaps: its header line, size and resident part in KiB.
struct Mapping {
    header: String,
    size: u64,
    rss: u64,
}

fn mappings(process: u32) -> Vec<Mapping> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let kib = || line.split_whitespace().nth(1).unwrap().parse().unwrap();
        match (line.split_whitespace().next().unwrap_or_default(), mappings.last_mut()) {
            (first, _) if first.contains('-') => {
                mappings.push(Mapping { header: line.to_owned(), size: 0, rss: 0 });
            }
            ("Size:", Some(mapping)) => mapping.size = kib(),
            ("Rss:", Some(mapping)) => mapping.rss = kib(),
            _ => {}
        }
    }
    mappings
}

/// What is resident besides guest memory, in KiB: the program's own pages, the page cache's part of them included.
fn monitor_memory(name: &str, program: &OsStr, devices: &[&str]) -> u64 {
    let kernel = Scratch::file(name, &elf::kernel(guests::spin()));
    let mut command = Command::new(program);
    command.args(["run", "--memory", &GUEST_MIB.to_string(), "--kernel"]).arg(kernel.as_ref()).args(devices);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut started = Started(child);
    let mut byte = [0];
    started.0.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    std::thread::sleep(SETTLE);

    let mappings = mappings(started.0.id());
    let is_guest = |mapping: &Mapping| (GUEST_MIB << 10..(GUEST_MIB + 1) << 10).contains(&mapping.size);
    assert_eq!(mappings.iter().filter(|mapping| is_guest(mapping)).count(), 1, "one mapping is the guest's");
    // KVM can map huge pages only where guest and host addresses lie alike: nothing is in the way of that here.
    let guest = mappings.iter().find(|mapping| is_guest(mapping)).unwrap();
    let start = guest.header.split('-').next().and_then(|start| u64::from_str_radix(start, 16).ok()).unwrap();
    assert_eq!(start % (2 << 20), 0, "{}", guest.header);
    let monitor: u64 = mappings.iter().filter(|mapping| !is_guest(mapping)).map(|mapping| mapping.rss).sum();
    let largest: Vec<_> = mappings
        .iter()
        .filter(|mapping| mapping.rss >= 16)
        .map(|m| format!("{} KiB {}", m.rss, m.header))
        .collect();
    println!("{name}: {monitor} KiB, of which\n{}", largest.join("\n"));
    assert!(monitor > 100, "{monitor} KiB is no monitor");
    monitor
}

/// The release program, which budgets are of.
fn release(test: &str) -> Option<OsString> {
    let program = std::env::var_os("FIRECREST_BIN");
    if program.is_none() {
        println!("SKIPPED {test}: FIRECREST_BIN does not name the release program");
    }
    program
}

#[test]
fn budgets_are_read_from_the_table() {
    assert_eq!(number("12,000 lines"), Some(12_000));
    assert_eq!(number("0"), Some(0));
    assert_eq!(number("none"), None);
}

#[test]
fn memory_without_devices() {
    if let Some(program) = release("memory_without_devices") {
        within("monitor memory besides guest RAM, no devices (KiB)", monitor_memory("bare", &program, &[]));
    }
}

#[test]
fn memory_with_three_devices() {
    let Some(program) = release("memory_with_three_devices") else { return };
    in_a_namespace("memory_with_three_devices", move || {
        tap(1, 1500);
        let disk = Scratch::file("budget-disk", &[0; 1 << 20]);
        let socket = std::env::temp_dir().join(format!("firecrest-budget-{}", std::process::id()));
        let block = format!("path={}", disk.as_ref().display());
        let vsock = format!("cid=3,path={}", socket.display());
        let devices = ["--block", &block, "--net", "tap=tap0", "--vsock", &vsock];
        let memory = monitor_memory("devices", &program, &devices);
        let _ = std::fs::remove_file(&socket);
        within("monitor memory besides guest RAM, a disk, a network card and a vsock (KiB)", memory);
    });
}

/// Lines that are neither blank nor comment, of all sources of the library but its tests.
#[test]
fn lines_of_the_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["vmm", "devices", "boot", "seccomp"].map(|name| root.join(name).join("src"));
    if folders.iter().any(|folder| !folder.is_dir()) {
        println!("SKIPPED lines_of_the_library: the sources are not here");
        return;
    }
    let lines: u64 = folders.iter().map(|folder| lines_in(folder)).sum();
    assert!(lines > 1000, "{lines} lines are no library");
    within("lines of code of the whole library", lines);
}

fn lines_in(folder: &Path) -> u64 {
    let mut lines = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_test = ["tests", "testing"].contains(&name.as_str()) || name.ends_with("_tests");
        if is_test {
            continue;
        }
        if path.is_dir() {
            lines += lines_in(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
            lines += code.count() as u64;
        }
    }
    lines
}
