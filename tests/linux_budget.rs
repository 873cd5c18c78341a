//! Budgets of SPECIFICATION.md for the boot of a Linux guest: instructions, and exits to user space.
//!
//! `cargo xtask test` runs them in the lab with its deterministic clock, wherever Linux guests run otherwise: there a
//! nanosecond is an instruction of the guest, the monitor or KVM. What is measured, and how, is in
//! `benches/boot/measure.sh`; `cargo xtask bench boot` measures the same, beside peers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use support::budget::within;
use support::guest::file;
use support::program::program;

/// As in `cargo xtask bench boot`.
const QUIET: &str = "quiet loglevel=0 8250.nr_uarts=0 reboot=t panic=-1";
/// The serial port in memory, and at its ports.
const CONSOLE: &str = "console=ttyS4 reboot=t panic=-1";
const PORTS: &str = "console=ttyS0 reboot=t panic=-1";

/// The last line but those of init's reset that a boot's log has.
const LAST_LINE: &str = "Run /init as init process";

/// Boots the guest whose PID 1 marks the moment and resets the machine.
fn boot(mode: &str, cmdline: &str) -> BTreeMap<String, u64> {
    let firecrest = program();
    let mut command = Command::new("sh");
    command.arg(file("FIRECREST_BOOT_MEASURE")).arg(mode).arg(firecrest.get_program());
    command.args(["run", "--kernel", &file("FIRECREST_GUEST_VMLINUX")]);
    command.args(["--initrd", &file("FIRECREST_BOOT_INITRD"), "--cmdline", cmdline]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{cmdline}\n{text}");
    assert!(!text.contains("boot: error"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let lines = text.lines().filter_map(|line| line.strip_prefix("boot: ")?.split_once(' '));
    let seen: BTreeMap<_, _> =
        lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect();
    assert_eq!(seen["code"], 16, "the guest has reset itself");
    seen
}

#[test]
fn instructions_to_the_guest_and_to_pid_1() {
    // The first boot in a lab finds nothing of the monitor's in the page cache's tables.
    within("instructions from exec to PID 1", boot("time", QUIET)["init"]);
    within("instructions from exec to the first guest instruction", boot("count", QUIET)["entry"]);
}

#[test]
fn instructions_to_the_guest_where_pages_are_small() {
    std::fs::write("/sys/kernel/mm/transparent_hugepage/enabled", "madvise").unwrap();
    boot("time", QUIET);
    let entry = boot("count", QUIET)["entry"];
    std::fs::write("/sys/kernel/mm/transparent_hugepage/enabled", "always").unwrap();
    within("instructions from exec to the first guest instruction, where huge pages are for who asks", entry);
}

#[test]
fn exits_of_a_quiet_boot() {
    let seen = boot("count", QUIET);
    assert!(seen["exits"] > 100, "a boot has exits");
    within("user-space exits to PID 1, quiet", seen["user-exits"]);
}

/// User-space exits of a boot that shows its whole log.
fn exits_with_the_log(cmdline: &str) -> u64 {
    let seen = boot("count", cmdline);
    let log = std::fs::read_to_string("/tmp/boot.out").unwrap();
    for line in ["Linux version", LAST_LINE] {
        assert!(log.contains(line), "the log has no `{line}`:\n{log}");
    }
    let after = log.split(LAST_LINE).nth(1).unwrap();
    assert!(after.ends_with("reboot: machine restart\r\n"), "what comes last is not lost:\n{after}");
    seen["user-exits"]
}

#[test]
fn exits_of_a_boot_with_its_log_on_the_console() {
    let exits = exits_with_the_log(CONSOLE);
    within("user-space exits to PID 1, the whole log on a serial console (`ttyS4`)", exits);
}

#[test]
fn exits_of_a_boot_with_its_log_at_the_ports() {
    let exits = exits_with_the_log(PORTS);
    within("user-space exits to PID 1, the whole log on a serial console at ports (`ttyS0`)", exits);
}
