//! Budgets of SPECIFICATION.md that need no clock, measured on the release program.
//!
//! `FIRECREST_BIN` names it; `cargo xtask test` builds it and sets that.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::io::Read;
use std::process::{Child, Command, Stdio};

use support::{Scratch, elf, guests};

/// An odd size, by which the guest's memory is found among the process's mappings.
const GUEST_MIB: u64 = 97;

/// Monitor memory with a tiny guest, in KiB.
const MONITOR_KIB: u64 = 1728;

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

/// All that is resident besides guest memory: the program's own pages, the page cache's part of them included.
#[test]
fn monitor_memory() {
    let Some(program) = std::env::var_os("FIRECREST_BIN") else {
        println!("SKIPPED monitor_memory: FIRECREST_BIN does not name the release program");
        return;
    };
    let kernel = Scratch::file("budget", &elf::kernel(guests::spin()));
    let mut command = Command::new(program);
    command.args(["run", "--memory", &GUEST_MIB.to_string(), "--kernel"]).arg(kernel.as_ref());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut started = Started(child);
    let mut byte = [0];
    started.0.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();

    let mappings = mappings(started.0.id());
    let is_guest = |mapping: &Mapping| (GUEST_MIB << 10..(GUEST_MIB + 1) << 10).contains(&mapping.size);
    assert_eq!(mappings.iter().filter(|mapping| is_guest(mapping)).count(), 1, "one mapping is the guest's");
    let monitor: u64 = mappings.iter().filter(|mapping| !is_guest(mapping)).map(|mapping| mapping.rss).sum();
    let largest: Vec<_> = mappings
        .iter()
        .filter(|mapping| mapping.rss >= 16)
        .map(|m| format!("{} KiB {}", m.rss, m.header))
        .collect();
    println!("monitor memory: {monitor} KiB, of which\n{}", largest.join("\n"));
    assert!(monitor > 100, "{monitor} KiB is no monitor");
    assert!(monitor <= MONITOR_KIB, "{monitor} KiB are over the budget of {MONITOR_KIB}");
}
