//! The serial port and KVM: which bytes cause an exit, when they come, and that none is lost.

#![allow(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, reason = "tests")]

mod support;

use std::time::Duration;

use firecrest_vmm::{Builder, Console, Exit, Kernel, Protocol, RegisterAccess, Vm};
use support::{Recorder, alone, elf, guests, tiny, wait};

/// The status is memory of a guest that says it is Linux; it is entered so that it reaches the place.
fn machine(code: &[u8]) -> Builder {
    let kernel = Kernel::from_bytes(&elf::linux_kernel(code)).unwrap().protocol(Protocol::Pvh);
    Vm::builder().memory_mib(32).kernel(kernel)
}

/// Runs to power-off; what was written, and how many exits to user space it took.
fn run(builder: Builder) -> (String, u64) {
    let serial = Recorder::default();
    let running = builder.console(Console::to(serial.clone())).build().unwrap().start().unwrap();
    assert_eq!(wait(&running).unwrap(), Exit::PowerOff);
    (serial.text(), running.stats().exits.iter().sum())
}

/// What the guests that write 10 KiB write.
fn alphabet() -> String {
    ('a'..='z').cycle().take(10 << 10).collect()
}

/// At most so many exits for 10 KiB: one for each 169 bytes, one when the console's thread has found nothing for a while,
/// however slow the guest is, and the end.
const FEW: u64 = 200;

#[test]
fn bytes_in_memory_cause_no_exit_each_and_none_is_lost() {
    let _alone = alone();
    let (output, exits) = run(machine(guests::ten_kib_in_memory()));
    assert_eq!(output, alphabet());
    println!("{exits} exits");
    assert!(exits < FEW, "{exits} exits");
}

#[test]
fn bytes_at_ports_cause_no_exit_each_and_none_is_lost() {
    let _alone = alone();
    let (output, exits) = run(tiny(guests::ten_kib()));
    assert_eq!(output, alphabet());
    println!("{exits} exits");
    assert!(exits < FEW, "{exits} exits");
}

#[test]
fn trapped_every_access_exits_and_the_bytes_are_the_same() {
    let _alone = alone();
    let (output, exits) = run(machine(guests::ten_kib_in_memory()).register_access(RegisterAccess::Trapped));
    assert_eq!(output, alphabet());
    assert_eq!(exits, 2 * (10 << 10) + 1);
}

#[test]
fn a_guest_that_is_not_linux_reads_the_status_by_exits() {
    let _alone = alone();
    let kernel = Kernel::from_bytes(&elf::pvh_kernel(guests::ten_kib_in_memory())).unwrap();
    let (output, exits) = run(Vm::builder().memory_mib(32).kernel(kernel));
    assert_eq!(output, alphabet());
    assert!((10 << 10..(10 << 10) + FEW).contains(&exits), "{exits} exits");
}

/// How often the console's thread has gone to sleep.
fn sleeps() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let status = tasks
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok())
        .find(|status| status.contains("fc-console"))
        .unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn what_no_exit_follows_comes_all_the_same_and_then_nobody_looks_any_more() {
    let _alone = alone();
    let serial = Recorder::default();
    let builder = machine(guests::three_bytes_in_memory()).console(Console::to(serial.clone()));
    let running = builder.build().unwrap().start().unwrap();
    serial.wait_for(3);
    assert_eq!(serial.text(), "abc");
    assert!(running.stats().exits.iter().sum::<u64>() <= 1, "the first byte alone exits");
    // As long as it looks for more at most, many times over.
    std::thread::sleep(Duration::from_millis(300));
    let before = sleeps();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(sleeps(), before, "it sleeps");
}

#[test]
fn bytes_that_something_follows_from_are_never_late() {
    let _alone = alone();
    let (output, exits) = run(machine(guests::prompt_bytes_in_memory()));
    assert_eq!(output, format!("{}l", "t".repeat(100)));
    // Both hundreds and the writes before and after, the byte read back and sent, and the end.
    assert_eq!(exits, 1 + 100 + 2 + 100 + 1 + 1 + 1 + 1);
}
