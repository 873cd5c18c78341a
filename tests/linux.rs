//! Linux guests: kernels nobody here wrote, booted by every protocol, with what they saw of their machine.
//!
//! They need a KVM with hardware virtualisation, and four files whose paths are in the environment;
//! `cargo xtask test --level 3` finds or makes both. What the guest does is chosen by `fc.do=` on its command
//! line (see `cargo xtask guest --help`).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    reason = "tests"
)]

mod support;

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use firecrest_vmm::{Builder, Console, Exit, Kernel, Protocol, ResetCause, Vm};
use support::{Recorder, until, wait};

const VMLINUX: &str = "FIRECREST_GUEST_VMLINUX";
const BZIMAGE: &str = "FIRECREST_GUEST_BZIMAGE";
const DEBIAN: &str = "FIRECREST_GUEST_DEBIAN";
const INITRD: &str = "FIRECREST_GUEST_INITRD";

/// Longer than any guest here takes to do anything, on an emulated CPU.
const LONG: Duration = Duration::from_secs(60);

fn file(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run `cargo xtask test --level 3`"))
}

/// The kernel in the file that `variable` names, to do what `todo` says.
fn kernel(variable: &str, todo: &str) -> Kernel {
    kernel_on("ttyS0", variable, todo)
}

/// The same with its console on this serial port.
fn kernel_on(port: &str, variable: &str, todo: &str) -> Kernel {
    let cmdline = format!("console={port} panic=-1 {todo}");
    Kernel::open(file(variable)).unwrap().cmdline(cmdline).initrd(file(INITRD)).unwrap()
}

/// A machine of one CPU and 128 MiB, and what it writes on its console.
fn machine(kernel: Kernel) -> (Builder, Recorder) {
    let console = Recorder::default();
    (Vm::builder().memory_mib(128).kernel(kernel).console(Console::to(console.clone())), console)
}

/// Runs it to its end.
fn run((builder, console): (Builder, Recorder)) -> (Exit, Recorder) {
    let running = builder.build().unwrap().start().unwrap();
    let exit = wait(&running);
    let exit = exit.unwrap_or_else(|error| panic!("{error}\n{}", console.text()));
    (exit, console)
}

/// The value of a line `FC name=value` of the guest's report.
fn reported(console: &Recorder, name: &str) -> String {
    let text = console.text();
    let prefix = format!("FC {name}=");
    let value = text.lines().find_map(|line| line.trim_end().strip_prefix(&prefix));
    value.unwrap_or_else(|| panic!("no {prefix} in\n{text}")).to_owned()
}

fn number(console: &Recorder, name: &str) -> u64 {
    reported(console, name).parse().unwrap()
}

/// Boots, has the guest report, and checks what any guest of one CPU and 128 MiB should see.
fn boots(kernel: Kernel) {
    let (exit, console) = run(machine(kernel));
    assert_eq!(exit, Exit::PowerOff, "{}", console.text());
    assert_eq!(reported(&console, "initrd"), "ok");
    assert_eq!(number(&console, "cpus"), 1);
    let kib = number(&console, "memtotal_kib");
    assert!((80 << 10..128 << 10).contains(&kib), "{kib} KiB of 128 MiB");
    assert_eq!(reported(&console, "clocksource"), "kvm-clock");
    // Ours has a built-in one, which goes first.
    let cmdline = reported(&console, "cmdline");
    assert!(cmdline.ends_with("console=ttyS0 panic=-1 fc.do=report,poweroff"), "{cmdline}");
}

#[test]
fn elf_by_the_linux_protocol() {
    boots(kernel(VMLINUX, "fc.do=report,poweroff").protocol(Protocol::Linux64));
}

#[test]
fn elf_by_pvh() {
    boots(kernel(VMLINUX, "fc.do=report,poweroff").protocol(Protocol::Pvh));
}

#[test]
fn bzimage() {
    boots(kernel(BZIMAGE, "fc.do=report,poweroff"));
}

#[test]
fn elf_from_sealed_memory() {
    boots(kernel(VMLINUX, "fc.do=report,poweroff").sealed().unwrap());
}

#[test]
fn debian_stock_kernel() {
    boots(kernel(DEBIAN, "fc.do=report,poweroff"));
}

#[test]
fn debian_stock_kernel_with_two_cpus() {
    let (builder, console) = machine(kernel(DEBIAN, "fc.do=report,poweroff"));
    let (exit, console) = run((builder.vcpus(2), console));
    assert_eq!(exit, Exit::PowerOff, "{}", console.text());
    assert_eq!(number(&console, "cpus"), 2);
    assert!(!console.text().contains("inconsistent MTRR"), "{}", console.text());
}

#[test]
fn the_guest_sees_one_two_and_four_cpus() {
    for count in [1, 2, 4] {
        let (builder, console) = machine(kernel(VMLINUX, "fc.do=report,poweroff"));
        let (exit, console) = run((builder.vcpus(count), console));
        assert_eq!(exit, Exit::PowerOff, "{}", console.text());
        assert_eq!(number(&console, "cpus"), count as u64, "{}", console.text());
    }
}

/// The last size crosses the MMIO gap: without the part above 4 GiB the guest would see 3 GiB.
#[test]
fn the_guest_sees_its_memory() {
    for mib in [64, 2 << 10, 5 << 10] {
        let (builder, console) = machine(kernel(VMLINUX, "fc.do=report,poweroff"));
        let (exit, console) = run((builder.memory_mib(mib), console));
        assert_eq!(exit, Exit::PowerOff, "{mib} MiB: {}", console.text());
        // What the kernel takes for itself: 24 MiB, and up to 1/24 of the whole for page structures and hash tables.
        let (most, least) = (mib << 10, ((mib - mib / 24) << 10).saturating_sub(24 << 10));
        let kib = number(&console, "memtotal_kib");
        assert!((least..=most).contains(&kib), "{kib} KiB of {mib} MiB");
    }
}

#[test]
fn each_way_to_reboot_is_told_apart() {
    for (way, cause) in [
        ("reboot=k", ResetCause::Keyboard),
        ("reboot=a", ResetCause::Acpi),
        ("reboot=t", ResetCause::TripleFault),
    ] {
        let (exit, console) = run(machine(kernel(VMLINUX, &format!("{way} fc.do=reboot"))));
        assert_eq!(exit, Exit::Reset(cause), "{way}: {}", console.text());
    }
}

/// Without a word on the command line, ours and Debian's: that one, built for EFI and not finding it, jumps to the
/// reset vector.
#[test]
fn rebooting_is_a_reset() {
    for variable in [VMLINUX, DEBIAN] {
        let (exit, console) = run(machine(kernel(variable, "fc.do=reboot")));
        assert!(matches!(exit, Exit::Reset(_)), "{exit}: {}", console.text());
    }
}

#[test]
fn a_panic_is_told_from_a_reset() {
    let (exit, console) = run(machine(kernel(VMLINUX, "fc.do=panic")));
    assert_eq!(exit, Exit::GuestPanic, "{}", console.text());
    assert!(console.text().contains("Kernel panic"), "{}", console.text());
}

#[test]
fn a_second_of_pause_leaves_the_clock_sane() {
    let (builder, console) = machine(kernel(VMLINUX, "fc.do=clock"));
    let running = builder.vcpus(2).build().unwrap().start().unwrap();
    let ticks = || console.text().matches("FC tick").count();
    until("ten ticks of the guest's clock", || ticks() >= 10);
    running.pause().unwrap();
    let (from, seen) = (Instant::now(), console.len());
    thread::sleep(Duration::from_secs(1));
    assert_eq!(console.len(), seen, "the guest wrote while it was paused");
    let paused = from.elapsed().as_secs_f64();
    running.resume().unwrap();
    assert_eq!(wait(&running).unwrap(), Exit::PowerOff);

    let text = console.text();
    let ticks: Vec<(f64, f64)> = text
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("FC tick ")?.split_once(' '))
        .filter_map(|(uptime, date)| Some((uptime.parse().ok()?, date.parse().ok()?)))
        .collect();
    assert!(ticks.len() > 20, "{text}");
    let steps: Vec<f64> = ticks.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(steps.iter().all(|step| *step >= 0.0), "the clock went back: {steps:?}");
    let longest = steps.iter().copied().fold(0.0, f64::max);
    assert!(
        (paused * 0.9..paused + 2.0).contains(&longest),
        "paused for {paused} s, the clock says {longest}"
    );
    let ((up0, date0), (up1, date1)) = (ticks[0], ticks[ticks.len() - 1]);
    assert!(((up1 - up0) - (date1 - date0)).abs() <= 2.0, "uptime and date went apart: {ticks:?}");
    for complaint in ["soft lockup", "unstable", "stall"] {
        assert!(!text[seen..].contains(complaint), "{complaint}: {text}");
    }
}

#[test]
fn the_console_takes_input() {
    takes_input("ttyS0");
}

#[test]
fn the_console_in_memory_takes_input() {
    takes_input("ttyS4");
}

fn takes_input(port: &str) {
    let (builder, console) = machine(kernel_on(port, VMLINUX, "fc.do=echo"));
    let running = builder.build().unwrap().start().unwrap();
    until("the guest's init", || console.text().contains("FC init"));
    assert!(console.text().contains("Linux version"), "all of its log is there: {}", console.text());
    // Longer than the port's FIFO, so that some of it waits for the guest to read.
    let long = "0123456789".repeat(15);
    let mut input = running.console_input();
    for line in ["hello", &long, "quit"] {
        thread::sleep(Duration::from_millis(300));
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
    assert_eq!(wait(&running).unwrap(), Exit::PowerOff, "{}", console.text());
    for line in ["hello", &long] {
        assert!(console.text().contains(&format!("FC got {line}")), "{}", console.text());
    }
}

#[test]
fn an_idle_guest_is_stopped_at_once() {
    let (builder, console) = machine(kernel(VMLINUX, "fc.do=idle"));
    let running = builder.vcpus(4).build().unwrap().start().unwrap();
    until("the guest's init", || console.text().contains("FC init"));
    let from = Instant::now();
    running.stop_handle().stop();
    assert_eq!(running.wait().unwrap(), Exit::Stopped);
    assert!(from.elapsed() < LONG / 6, "{:?}", from.elapsed());
}

/// Two at once, of one kernel and in one process.
#[test]
fn guests_do_not_know_of_one_another() {
    let shared = kernel(VMLINUX, "fc.do=report,poweroff");
    let guests: Vec<_> = [1, 2]
        .map(|count| {
            let (builder, console) = machine(shared.clone());
            (builder.vcpus(count).build().unwrap().start().unwrap(), console, count)
        })
        .into();
    for (running, console, count) in &guests {
        assert_eq!(wait(running).unwrap(), Exit::PowerOff, "{}", console.text());
        assert_eq!(number(console, "cpus"), *count as u64);
    }
}
