//! Many machines in one process: everything is given back, and the process stays the caller's.

#![allow(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, reason = "tests")]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use firecrest_vmm::{Console, Exit, Jail, Kernel, Vm};
use support::process::{self, Held};
use support::{Recorder, alone, elf, guests, run, tiny, tiny_recorded, until, wait};

/// What RSS may grow by after the warm-up, all machines together: the allocator's own unsteadiness.
const SLACK_KIB: usize = 400;

/// Machines after which caches and pools are as large as they get.
const WARM_UP: usize = 50;

/// An emulated CPU need not run all of the thousand, but this many, and as many as it can within this time.
const AT_LEAST: usize = 150;
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn a_thousand_in_sequence_leave_nothing_behind() {
    let _alone = alone();
    let kernel = Kernel::from_bytes(&elf::kernel(guests::power_off())).unwrap();
    let once = || {
        let vm = Vm::builder().memory_mib(32).vcpus(1).kernel(kernel.clone());
        let exit = run(vm.console(Console::to(std::io::sink())));
        assert!(matches!(exit, Exit::PowerOff), "{exit}");
    };
    let before = Held::now();
    let start = Instant::now();
    (0..WARM_UP).for_each(|_| once());
    let warm = process::resident_kib();
    let count = (WARM_UP..1000).take_while(|number| *number < AT_LEAST || start.elapsed() < PATIENCE);
    let count = WARM_UP + count.inspect(|_| once()).count();
    let resident = process::resident_kib();
    before.assert_back("many machines");
    assert!(resident <= warm + SLACK_KIB, "resident memory grew from {warm} to {resident} KiB");
    println!("resident memory: {warm} KiB after {WARM_UP} machines, {resident} KiB after {count}");
    if count < 1000 {
        println!("SKIPPED a_thousand_in_sequence_leave_nothing_behind: only {count} within {PATIENCE:?}");
    }
}

#[test]
fn fifty_at_once_run_and_leave_nothing_behind() {
    let _alone = alone();
    let before = Held::now();
    let kernel = Kernel::from_bytes(&elf::kernel(guests::echo())).unwrap();
    let machines: Vec<_> = (0..50)
        .map(|_| {
            let serial = Recorder::default();
            let vm = Vm::builder().memory_mib(32).vcpus(1).kernel(kernel.clone());
            let running = vm.console(Console::to(serial.clone())).build().unwrap().start().unwrap();
            (running, serial)
        })
        .collect();
    // All of them are there: each answers for itself.
    for (number, (running, _)) in machines.iter().enumerate() {
        let text = format!("{number}q");
        std::io::Write::write_all(&mut running.console_input(), text.as_bytes()).unwrap();
    }
    for (number, (running, serial)) in machines.iter().enumerate() {
        let exit = wait(running).unwrap();
        assert!(matches!(exit, Exit::PowerOff), "{exit}");
        assert_eq!(serial.text(), format!("{number}q"));
    }
    drop(machines);
    drop(kernel);
    before.assert_back("50 machines at once");
}

#[test]
fn dropped_while_spinning_leaves_nothing_behind() {
    let _alone = alone();
    let before = Held::now();
    for _ in 0..20 {
        let (builder, serial) = tiny_recorded(guests::spin());
        let running = builder.build().unwrap().start().unwrap();
        serial.wait_for(1);
        drop(running);
    }
    before.assert_back("dropping spinning guests");
}

#[test]
fn dropped_while_paused_asleep_or_not_started_leaves_nothing_behind() {
    let _alone = alone();
    let before = Held::now();
    let running = tiny(guests::dots()).build().unwrap().start().unwrap();
    running.pause().unwrap();
    drop(running);
    drop(tiny(guests::sleep()).build().unwrap().start().unwrap());
    drop(tiny(guests::spin()).build().unwrap());
    drop(tiny(guests::spin()));
    before.assert_back("dropping paused, sleeping and unstarted guests");
}

#[test]
fn ended_and_dropped_while_another_thread_writes_input() {
    let _alone = alone();
    let before = Held::now();
    let running =
        tiny(guests::spin()).console(Console::to(std::io::sink())).build().unwrap().start().unwrap();
    let mut input = running.console_input();
    // The guest never reads: the writer soon waits for room.
    let writer = thread::spawn(move || std::io::Write::write_all(&mut input, &[b'x'; 100_000]));
    thread::sleep(Duration::from_millis(20));
    drop(running);
    let error = writer.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    before.assert_back("dropping a machine whose input is being written");
}

#[test]
fn sixty_four_vcpus_have_named_threads_and_are_joined() {
    let _alone = alone();
    let before = Held::now();
    let (builder, serial) = tiny_recorded(guests::spin());
    let running = builder.vcpus(64).build().unwrap().start().unwrap();
    serial.wait_for(1);
    let is_vcpu = |name: &&String| name.starts_with("fc-vcpu");
    until("64 threads", || process::threads().iter().filter(is_vcpu).count() == 64);
    let names = process::threads();
    for number in 0..64 {
        let name = format!("fc-vcpu{number}");
        assert!(names.contains(&name), "there is no thread {name}: {names:?}");
    }
    running.stop_handle().stop();
    let exit = wait(&running).unwrap();
    assert!(matches!(exit, Exit::Stopped), "{exit}");
    drop(running);
    before.assert_back("64 vCPUs");
}

#[test]
fn signals_stay_as_the_caller_left_them() {
    let _alone = alone();
    const FIELDS: [&str; 3] = ["SigBlk", "SigIgn", "SigCgt"];
    let before = FIELDS.map(process::signals);
    let mut during = Vec::new();
    for kick in [None, Some(libc::SIGRTMIN() + 5)] {
        let (builder, serial) = tiny_recorded(guests::spin());
        let builder = kick.into_iter().fold(builder, |builder, signal| builder.kick_signal(signal));
        let running = builder.build().unwrap().start().unwrap();
        serial.wait_for(1);
        running.pause().unwrap();
        running.resume().unwrap();
        during.push(FIELDS.map(process::signals));
        running.stop_handle().stop();
        wait(&running).unwrap();
    }
    for now in during.iter().chain([&FIELDS.map(process::signals)]) {
        assert_eq!(*now, before, "the masks of {FIELDS:?} changed");
    }
}

/// libc changes a process's user by a signal of its own to every thread, and waits for each to answer: a vCPU that
/// kept it blocked inside the guest would hold the caller up for ever. A jailed thread has no call to answer by, as
/// `Jail::enforce` says.
#[test]
fn the_caller_can_change_its_user_while_a_guest_spins() {
    let _alone = alone();
    let (builder, serial) = tiny_recorded(guests::spin());
    let running = builder.jail(Jail::off()).build().unwrap().start().unwrap();
    serial.wait_for(1);
    let (done, is_done) = std::sync::mpsc::channel();
    thread::spawn(move || {
        // SAFETY: takes plain numbers; these leave each user id as it is.
        let result = unsafe { libc::setresuid(libc::uid_t::MAX, libc::uid_t::MAX, libc::uid_t::MAX) };
        done.send(result).unwrap();
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(0));
    running.stop_handle().stop();
    let exit = wait(&running).unwrap();
    assert!(matches!(exit, Exit::Stopped), "{exit}");
}
