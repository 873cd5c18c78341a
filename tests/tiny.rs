//! Tiny guests on this machine's own KVM: every way to end, the serial port, pause and stop, and entry.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use firecrest_vmm::host::{self, Flavour};
use firecrest_vmm::{Console, Exit, Kernel, Memory, Protocol, ResetCause, Running, StopHandle, Vm};
use support::process::huge_pages_unasked;
use support::{Recorder, Scratch, elf, guests, run, tiny, tiny_recorded, until, wait};

fn flavour() -> Flavour {
    host::check("/dev/kvm").unwrap()
}

#[test]
fn powers_off() {
    let exit = run(tiny(guests::power_off()));
    assert!(matches!(exit, Exit::PowerOff), "{exit}");
}

#[test]
fn resets_through_the_keyboard_controller() {
    let exit = run(tiny(guests::reset_keyboard()));
    assert!(matches!(exit, Exit::Reset(ResetCause::Keyboard)), "{exit}");
}

#[test]
fn resets_through_the_acpi_register() {
    let exit = run(tiny(guests::reset_acpi()));
    assert!(matches!(exit, Exit::Reset(ResetCause::Acpi)), "{exit}");
}

#[test]
fn resets_through_a_triple_fault() {
    let exit = run(tiny(guests::triple_fault()));
    assert!(matches!(exit, Exit::Reset(ResetCause::TripleFault)), "{exit}");
}

#[test]
fn reports_a_panic() {
    let exit = run(tiny(guests::panic()));
    assert!(matches!(exit, Exit::GuestPanic), "{exit}");
}

#[test]
fn says_why_it_ended_in_words() {
    for (code, words) in [
        (guests::power_off(), "off"),
        (guests::reset_acpi(), "ACPI"),
        (guests::reset_keyboard(), "keyboard"),
        (guests::triple_fault(), "triple fault"),
        (guests::panic(), "panic"),
    ] {
        let exit = run(tiny(code)).to_string();
        assert!(exit.contains(words), "{exit:?} does not say {words:?}");
    }
}

#[test]
fn loses_nothing_of_the_serial_port_at_exit() {
    let (builder, serial) = tiny_recorded(guests::ten_kib());
    let exit = run(builder);
    assert!(matches!(exit, Exit::PowerOff), "{exit}");
    let expected: Vec<u8> = (b'a'..=b'z').cycle().take(10240).collect();
    assert!(serial.bytes() == expected, "{} bytes: {}", serial.len(), serial.text());
}

#[test]
fn outlives_a_console_that_fails() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }
    let exit = run(tiny(guests::ten_kib()).console(Console::to(Full)));
    assert!(matches!(exit, Exit::PowerOff), "{exit}");
}

#[test]
fn reads_input_from_a_descriptor() {
    let (reader, mut writer) = io::pipe().unwrap();
    let serial = Recorder::default();
    let console = Console::to(serial.clone()).input(OwnedFd::from(reader));
    let running = tiny(guests::echo()).console(console).build().unwrap().start().unwrap();
    writer.write_all(b"first, ").unwrap();
    serial.wait_for(7);
    writer.write_all(b"then the reader stops at q, not here").unwrap();
    let exit = wait(&running).unwrap();
    assert!(matches!(exit, Exit::PowerOff), "{exit}");
    assert_eq!(serial.text(), "first, then the reader stops at q");
}

#[test]
fn input_that_ends_is_only_no_more_input() {
    for input in [OwnedFd::from(File::open("/dev/null").unwrap()), OwnedFd::from(io::pipe().unwrap().0)] {
        let serial = Recorder::default();
        let console = Console::to(serial.clone()).input(input);
        let running = tiny(guests::dots()).console(console).build().unwrap().start().unwrap();
        serial.wait_for(100);
        running.stop_handle().stop();
        let exit = wait(&running).unwrap();
        assert!(matches!(exit, Exit::Stopped), "{exit}");
    }
}

#[test]
fn reads_input_from_a_handle() {
    let (builder, serial) = tiny_recorded(guests::echo());
    let running = builder.build().unwrap().start().unwrap();
    let mut input = running.console_input();
    // More than any FIFO holds: the writer waits for the guest.
    let text = "0123456789".repeat(50);
    let writer = thread::spawn(move || {
        input.write_all(text.as_bytes()).unwrap();
        input.write_all(b"q").unwrap();
        // The guest is gone or about to go.
        until("the input to break", || {
            input.write(b"more").is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
        });
    });
    let exit = wait(&running).unwrap();
    assert!(matches!(exit, Exit::PowerOff), "{exit}");
    writer.join().unwrap();
    assert_eq!(serial.text(), "0123456789".repeat(50) + "q");
}

#[test]
fn stops_a_spinning_guest_within_100_ms() {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let (builder, serial) = tiny_recorded(guests::spin());
        let running = builder.build().unwrap().start().unwrap();
        serial.wait_for(1);
        let start = Instant::now();
        running.stop_handle().stop();
        let exit = wait(&running).unwrap();
        best = best.min(start.elapsed());
        assert!(matches!(exit, Exit::Stopped), "{exit}");
    }
    assert!(best < Duration::from_millis(100), "stopping took {best:?}");
}

#[test]
fn stops_a_sleeping_guest() {
    let running = tiny(guests::sleep()).build().unwrap().start().unwrap();
    thread::sleep(Duration::from_millis(20));
    running.stop_handle().stop();
    let exit = wait(&running).unwrap();
    assert!(matches!(exit, Exit::Stopped), "{exit}");
}

#[test]
fn stops_from_another_thread_while_one_waits() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    fn both<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<StopHandle>();
    both::<Running>();
    sent::<Vm>();

    let (builder, serial) = tiny_recorded(guests::spin());
    let vm = builder.build().unwrap();
    let running = thread::spawn(|| vm.start().unwrap()).join().unwrap();
    let stop = running.stop_handle();
    let stopper = thread::spawn(move || {
        serial.wait_for(1);
        stop.stop();
        stop.stop();
        stop
    });
    let exit = wait(&running).unwrap();
    assert!(matches!(exit, Exit::Stopped), "{exit}");
    let stop = stopper.join().unwrap();
    drop(running);
    stop.stop(); // The machine is gone: nothing to do.
}

#[test]
fn stops_at_once_after_start() {
    for _ in 0..50 {
        let running = tiny(guests::spin()).build().unwrap().start().unwrap();
        running.stop_handle().stop();
        let exit = wait(&running).unwrap();
        assert!(matches!(exit, Exit::Stopped), "{exit}");
    }
}

#[test]
fn keeps_the_reason_it_ended_for() {
    let running = tiny(guests::reset_acpi()).build().unwrap().start().unwrap();
    wait(&running).unwrap();
    running.stop_handle().stop();
    let exit = wait(&running).unwrap();
    assert!(matches!(exit, Exit::Reset(ResetCause::Acpi)), "{exit}");
}

#[test]
fn pauses_and_resumes() {
    let (builder, serial) = tiny_recorded(guests::dots());
    let running = builder.build().unwrap().start().unwrap();
    for _ in 0..3 {
        let before = serial.len();
        until("output", || serial.len() > before);
        running.pause().unwrap();
        thread::sleep(Duration::from_millis(50)); // What was under way reaches the recorder.
        let paused = serial.len();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(serial.len(), paused, "the guest went on while paused");
        running.resume().unwrap();
        until("output after resume", || serial.len() > paused);
    }
    running.stop_handle().stop();
    let exit = wait(&running).unwrap();
    assert!(matches!(exit, Exit::Stopped), "{exit}");
}

#[test]
fn stops_while_paused() {
    let (builder, serial) = tiny_recorded(guests::dots());
    let running = builder.build().unwrap().start().unwrap();
    serial.wait_for(1);
    running.pause().unwrap();
    running.stop_handle().stop();
    let exit = wait(&running).unwrap();
    assert!(matches!(exit, Exit::Stopped), "{exit}");
}

#[test]
fn enters_through_pvh() {
    let serial = Recorder::default();
    let kernel = Kernel::from_bytes(&elf::pvh_kernel(guests::pvh_command_line())).unwrap();
    let kernel = kernel.protocol(Protocol::Pvh).cmdline("entered through PVH");
    let exit = run(Vm::builder().memory_mib(32).vcpus(1).kernel(kernel).console(Console::to(serial.clone())));
    assert!(matches!(exit, Exit::PowerOff), "{exit}");
    assert_eq!(serial.text(), "entered through PVH");
}

#[test]
fn passes_the_command_line() {
    let serial = Recorder::default();
    for line in ["", "console=ttyS0", &"long ".repeat(400)] {
        let before = serial.len();
        let kernel = Kernel::from_bytes(&elf::kernel(guests::command_line())).unwrap().cmdline(line);
        let builder = Vm::builder().memory_mib(32).vcpus(1).kernel(kernel);
        let exit = run(builder.console(Console::to(serial.clone())));
        assert!(matches!(exit, Exit::PowerOff), "{exit}");
        assert_eq!(serial.text()[before..].trim(), line.trim());
    }
}

#[test]
fn passes_the_initrd() {
    // Not a whole number of pages.
    let bytes: Vec<u8> = (0..5000u32).map(|i| (i * 7 % 251).to_le_bytes()[0]).collect();
    let path = Scratch::file("initrd", &bytes);
    let serial = Recorder::default();
    let kernel = Kernel::from_bytes(&elf::kernel(guests::initrd())).unwrap().initrd(&path).unwrap();
    let exit = run(Vm::builder().memory_mib(32).vcpus(1).kernel(kernel).console(Console::to(serial.clone())));
    assert!(matches!(exit, Exit::PowerOff), "{exit}");
    assert!(serial.bytes() == bytes, "the initial RAM disk arrived changed, {} bytes", serial.len());
}

/// The ranges of usable memory the guest found, as (address, size).
fn usable(memory: Memory) -> Vec<(u64, u64)> {
    let serial = Recorder::default();
    let kernel = Kernel::from_bytes(&elf::kernel(guests::memory_map())).unwrap();
    let exit = run(Vm::builder().memory(memory).vcpus(1).kernel(kernel).console(Console::to(serial.clone())));
    assert!(matches!(exit, Exit::PowerOff), "{exit}");
    let bytes = serial.bytes();
    let (entries, rest) = bytes.as_chunks::<20>();
    assert!(rest.is_empty() && !entries.is_empty());
    let number = |b: &[u8]| b.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let all = entries.iter().map(|e| (number(&e[..8]), number(&e[8..16]), number(&e[16..])));
    all.filter(|entry| entry.2 == 1).map(|entry| (entry.0, entry.1)).collect()
}

#[test]
fn describes_all_of_the_memory() {
    const MIB: u64 = 1 << 20;
    for mib in [17, 32, 128, 2048, 5120] {
        let ranges = usable(Memory::mib(mib));
        let sum: u64 = ranges.iter().map(|range| range.1).sum();
        let missing = mib * MIB - sum;
        assert!(missing <= MIB, "of {mib} MiB, {missing} bytes are missing: {ranges:x?}");
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{ranges:x?} overlap");
        }
        // Devices live below 4 GiB; memory continues above.
        let above = ranges.iter().any(|range| range.0 >= 4096 * MIB);
        assert_eq!(above, mib > 4096, "{ranges:x?}");
    }
}

#[test]
fn runs_in_16_mib() {
    // The smallest machine ends where the other kernels begin.
    let serial = Recorder::default();
    let kernel = Kernel::from_bytes(&elf::segments(&[(0x20_0000, guests::ten_kib())])).unwrap();
    let exit = run(Vm::builder().memory_mib(16).vcpus(1).kernel(kernel).console(Console::to(serial.clone())));
    assert!(matches!(exit, Exit::PowerOff), "{exit}");
    assert_eq!(serial.len(), 10240);
}

#[test]
fn runs_64_vcpus() {
    let kernel = Kernel::from_bytes(&elf::kernel(guests::start_cpus())).unwrap();
    for cpus in [2, 64] {
        // One character whose code is the number of CPUs to start.
        let others = char::from(u8::try_from(cpus - 1).unwrap()).to_string();
        let exit = run(Vm::builder().memory_mib(32).vcpus(cpus).kernel(kernel.clone().cmdline(others)));
        assert!(matches!(exit, Exit::PowerOff), "{exit}");
    }
}

#[test]
fn an_unknown_instruction_is_a_crash() {
    let exit = run(tiny(guests::cmpxchg16b()));
    if flavour() != Flavour::Pvm {
        assert!(matches!(exit, Exit::PowerOff), "{exit}");
        println!("SKIPPED an_unknown_instruction_is_a_crash: this KVM executes every instruction");
        return;
    }
    let Exit::Crash(crash) = exit else { panic!("{exit}") };
    let text = crash.to_string();
    // The registers, the instruction, and what this KVM is and can do.
    for part in ["1234", "f0", "c7", "PVM"] {
        assert!(text.contains(part), "{text:?} does not contain {part:?}");
    }
}

#[test]
fn running_where_no_memory_is_is_a_crash() {
    let exit = run(tiny(guests::jump_into_nothing()));
    let Exit::Crash(crash) = exit else { panic!("{exit}") };
    let text = crash.to_string();
    for part in ["20000000", "1234"] {
        assert!(text.contains(part), "{text:?} does not contain {part:?}");
    }
}

#[test]
fn a_kernel_file_cut_short_under_a_guest_is_a_crash() {
    if huge_pages_unasked() {
        println!("SKIPPED a_kernel_file_cut_short_under_a_guest_is_a_crash: kernels are copied here");
        return;
    }
    // Large enough to be mapped instead of copied.
    let mut code = guests::far_page().to_vec();
    code.resize(8 << 20, 0);
    let path = Scratch::file("cut-short", &elf::kernel(&code));
    let serial = Recorder::default();
    let builder = Vm::builder().memory_mib(32).vcpus(1).kernel(Kernel::open(&path).unwrap());
    let running = builder.console(Console::to(serial.clone())).build().unwrap().start().unwrap();
    serial.wait_for(1);
    // The guest's next instruction is on a page it has not touched, and which the file has no more.
    File::options().write(true).open(&path).unwrap().set_len(0x2000).unwrap();
    running.console_input().write_all(b"x").unwrap();
    let exit = wait(&running).unwrap();
    assert_eq!(serial.text(), "!");
    let Exit::Crash(crash) = exit else { panic!("{exit}") };
    // An interpreting KVM says the same of every page it cannot read.
    assert!(crash.to_string().contains("truncated") || flavour() == Flavour::Pvm, "{crash}");
}

#[test]
fn a_sealed_kernel_does_not_change_with_its_file() {
    let path = Scratch::file("sealed", &elf::kernel(guests::far_page()));
    let kernel = Kernel::open(&path).unwrap().sealed().unwrap();
    std::fs::write(&path, b"").unwrap();
    let serial = Recorder::default();
    let builder = Vm::builder().memory_mib(32).vcpus(1).kernel(kernel).console(Console::to(serial.clone()));
    let running = builder.build().unwrap().start().unwrap();
    running.console_input().write_all(b"x").unwrap();
    let exit = wait(&running).unwrap();
    assert!(matches!(exit, Exit::PowerOff), "{exit}");
    assert_eq!(serial.text(), "!.");
}
