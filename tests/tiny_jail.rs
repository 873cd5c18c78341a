//! The jails of a VM's threads, seen from the process that embeds it: every thread of the VM has one, no other thread
//! has, what a thread of the VM needs is let through and is needed, and a panic under a filter is a panic.
//!
//! What is to end a process is tried in a process of its own: this test's program, started again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::time::Instant;

use firecrest_seccomp::Role;
use firecrest_vmm::{
    Block, BlockEngine, Builder, Console, Exit, Jail, Kernel, Violation, Vm, Vsock, WaitError,
};
use support::{Recorder, Scratch, alone, elf, guests, process, tiny, until, wait};

const ATTEMPT: &str = "FIRECREST_TEST_ATTEMPT";

/// A machine with a disk of each engine and a socket device, which go when it is dropped.
struct Machine {
    _disks: [Scratch; 2],
    socket: std::path::PathBuf,
    builder: Option<Builder>,
}

impl Machine {
    fn new(name: &str, code: &[u8]) -> Self {
        let disk = |number| Scratch::file(&format!("{name}-{number}"), &[0; 4096]);
        let disks = [disk(0), disk(1)];
        let socket = std::env::temp_dir().join(format!("fc-{}-{name}", std::process::id()));
        let builder = Vm::builder()
            .memory_mib(97)
            .kernel(Kernel::from_bytes(&elf::kernel(code)).unwrap())
            .block(Block::file(disks[0].as_ref()))
            .block(Block::file(disks[1].as_ref()).engine(BlockEngine::IoUring))
            .vsock(Vsock::unix(3, &socket));
        Self { _disks: disks, socket, builder: Some(builder) }
    }

    fn builder(&mut self) -> Builder {
        self.builder.take().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

/// Name, mode of seccomp and `no_new_privs` of each thread of this process.
fn jails() -> Vec<(String, String, String)> {
    let status = |path: std::path::PathBuf| fs::read_to_string(path.join("status")).ok();
    let field = |text: &str, name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|entry| status(entry.ok()?.path()))
        .map(|text| (field(&text, "Name:"), field(&text, "Seccomp:"), field(&text, "NoNewPrivs:")))
        .collect()
}

#[test]
fn every_thread_of_the_vm_is_jailed_and_no_other() {
    let _alone = alone();
    const FIELDS: [&str; 6] = ["SigBlk", "SigIgn", "SigCgt", "Seccomp", "Seccomp_filters", "NoNewPrivs"];
    let before = FIELDS.map(process::status);
    for vcpus in [1, 2, 4] {
        let mut machine = Machine::new("jailed", guests::spin());
        let serial = Recorder::default();
        let builder = machine.builder().vcpus(vcpus).console(Console::to(serial.clone()));
        let running = builder.build().unwrap().start().unwrap();
        serial.wait_for(1);
        let ours = || jails().into_iter().filter(|(name, ..)| name.starts_with("fc-"));
        // vCPUs, two disks, two threads of the socket device, the console.
        until("all threads", || ours().filter(|(_, seccomp, _)| seccomp == "2").count() == vcpus + 5);
        assert!(ours().all(|(_, seccomp, privs)| seccomp == "2" && privs == "1"), "{:?}", jails());
        // KVM's own thread is the kernel's, made by the first KVM_RUN and after the image of who made that call.
        let others: Vec<_> = jails()
            .into_iter()
            .filter(|(name, ..)| !name.starts_with("fc-") && !name.starts_with("kvm-"))
            .collect();
        assert!(others.iter().all(|(_, seccomp, privs)| seccomp == "0" && privs == "0"), "{others:?}");
        for _ in 0..3 {
            running.pause().unwrap();
            running.resume().unwrap();
        }
        running.rescan();
        running.stop_handle().stop();
        assert_eq!(wait(&running).unwrap(), Exit::Stopped);
        drop(running);
    }
    assert_eq!(FIELDS.map(process::status), before, "the embedder's thread is as it was");
}

#[test]
fn nothing_is_both_writable_and_executable_and_guest_memory_is_never_executable() {
    let _alone = alone();
    let mut machine = Machine::new("maps", guests::spin());
    let serial = Recorder::default();
    let builder = machine.builder().console(Console::to(serial.clone()));
    let running = builder.build().unwrap().start().unwrap();
    serial.wait_for(1);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut guest = 0;
    let mut rings = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        assert!(!(rights.contains('w') && rights.contains('x')), "{line}");
        // The largest of all; the kernel may show it as one with a neighbour.
        let is_guest = number(end) - number(start) >= 90 << 20;
        if is_guest && rights.contains('w') {
            guest += 1;
        }
        rings += usize::from(line.contains("io_uring"));
        assert!(!(is_guest || line.contains("io_uring")) || !rights.contains('x'), "{line}");
    }
    assert_eq!(guest, 1, "guest memory is found\n{maps}");
    println!("{rings} mappings of rings");
    drop(running);
}

#[test]
fn a_vm_without_jails_has_none_and_is_no_different_to_its_guest() {
    let _alone = alone();
    let mut machine = Machine::new("off", guests::spin());
    let serial = Recorder::default();
    let builder = machine.builder().jail(Jail::off()).console(Console::to(serial.clone()));
    let running = builder.build().unwrap().start().unwrap();
    serial.wait_for(1);
    assert!(jails().iter().all(|(_, seccomp, privs)| seccomp == "0" && privs == "0"), "{:?}", jails());
    drop(running);
    let mut machine = Machine::new("log", guests::spin());
    let serial = Recorder::default();
    let builder = machine.builder().jail(Jail::log()).console(Console::to(serial.clone()));
    let running = builder.build().unwrap().start().unwrap();
    serial.wait_for(1);
    assert_eq!(wait_stopped(&running), Exit::Stopped);
}

fn wait_stopped(running: &firecrest_vmm::Running) -> Exit {
    running.stop_handle().stop();
    wait(running).unwrap()
}

#[test]
fn a_writer_outside_of_the_jail_may_call_what_it_likes() {
    let _alone = alone();
    let running =
        tiny(guests::ten_kib()).console(Console::to(Opening).unjailed()).build().unwrap().start().unwrap();
    assert_eq!(wait(&running).unwrap(), Exit::PowerOff);
}

/// A writer that opens a file: on a jailed thread, what its list does not have.
struct Opening;

impl Write for Opening {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fs::read("/proc/self/status").map(|_| bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells of a violation by a call that every list has, and returns.
extern "C" fn tell(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a pointer to the signal's information.
    if let Some(violation) = Violation::from_signal(unsafe { &*info }) {
        let _ = writeln!(io::stderr(), "{violation}");
    }
}

/// Panics where the guest's output is to go: on a jailed thread.
struct Panicking;

impl Write for Panicking {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        panic!("the writer has had enough")
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is tried in a process of its own.
#[test]
fn one_attempt() {
    let Ok(what) = std::env::var(ATTEMPT) else { return };
    let mut words = what.split('/');
    let (workload, role) = (words.next().unwrap(), words.next().unwrap());
    let jail = match (Role::ALL.into_iter().find(|known| known.to_string() == role), words.next()) {
        (Some(role), Some(rule)) => Jail::enforce().without(role, rule.parse().unwrap()),
        _ => Jail::enforce(),
    };
    match workload {
        "panic" => {
            let builder = tiny(guests::spin()).console(Console::to(Panicking)).jail(jail);
            let error = wait(&builder.build().unwrap().start().unwrap()).unwrap_err();
            let (thread, message) = ("fc-console".to_owned(), "the writer has had enough".to_owned());
            assert_eq!(error, WaitError::Panicked { thread, message });
        }
        "pause" => {
            let serial = Recorder::default();
            let builder = tiny(guests::dots()).console(Console::to(serial.clone())).jail(jail);
            let running = builder.build().unwrap().start().unwrap();
            serial.wait_for(1);
            running.pause().unwrap();
            running.resume().unwrap();
            assert_eq!(wait_stopped(&running), Exit::Stopped);
        }
        "cpus" => {
            let kernel = Kernel::from_bytes(&elf::kernel(guests::start_cpus())).unwrap().cmdline("\x01");
            let builder = Vm::builder().memory_mib(32).vcpus(2).kernel(kernel).jail(jail);
            builder.build().unwrap().start().unwrap().wait().unwrap();
        }
        "route" => {
            let kernel = Kernel::from_bytes(&elf::pvh_kernel(guests::ioapic_route())).unwrap();
            let disk = Scratch::file("route", &[0; 4096]);
            let builder = Vm::builder().memory_mib(32).kernel(kernel).block(Block::file(disk.as_ref()));
            let exit = builder.jail(jail).build().unwrap().start().unwrap().wait().unwrap();
            assert_eq!(exit, Exit::PowerOff);
        }
        "trap" => {
            // SAFETY: all-zero is a valid sigaction, and the handler does what a handler may.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = (tell as *const ()).expose_provenance();
                action.sa_flags = libc::SA_SIGINFO;
                assert_eq!(libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()), 0);
            }
            let builder = tiny(guests::ten_kib()).console(Console::to(Opening)).jail(Jail::trap());
            // The writer's call fails; the guest is none the wiser.
            assert_eq!(wait(&builder.build().unwrap().start().unwrap()).unwrap(), Exit::PowerOff);
        }
        "open" => {
            let builder = tiny(guests::ten_kib()).console(Console::to(Opening)).jail(jail);
            builder.build().unwrap().start().unwrap().wait().unwrap();
        }
        "user" => {
            let mut machine = Machine::new("user", guests::dots());
            let serial = Recorder::default();
            let builder = machine.builder().vcpus(2).console(Console::to(serial.clone()));
            let running = builder.build().unwrap().start().unwrap();
            serial.wait_for(1);
            become_nobody();
            let seen = serial.bytes().len();
            serial.wait_for(seen + 1);
            running.pause().unwrap();
            running.resume().unwrap();
            assert_eq!(wait_stopped(&running), Exit::Stopped);
        }
        "echo" => {
            let (reader, mut writer) = io::pipe().unwrap();
            let serial = Recorder::default();
            let console = Console::to(serial.clone()).input(reader);
            let running = tiny(guests::echo()).console(console).jail(jail).build().unwrap().start().unwrap();
            writer.write_all(b"q").unwrap();
            assert_eq!(wait(&running).unwrap(), Exit::PowerOff);
            assert_eq!(serial.bytes(), b"q");
        }
        workload => panic!("{workload}"),
    }
}

fn attempt(what: &str, backtrace: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_attempt", "--nocapture"])
        .env(ATTEMPT, what)
        .env("RUST_BACKTRACE", backtrace)
        .output()
        .unwrap()
}

/// A panic ends the run and not the process, and is told, whether it is to be told with a backtrace or not.
#[test]
fn a_panic_in_a_jail_is_told_and_ends_the_run_alone() {
    for backtrace in ["0", "1", "full"] {
        let output = attempt("panic/", backtrace);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "RUST_BACKTRACE={backtrace}: {}: {said}", output.status);
        assert!(said.contains("the writer has had enough") && said.contains("fc-console"), "{said}");
    }
}

/// Has every thread of the process become another user, as far as it can: it is told that it can.
fn become_nobody() {
    const NOBODY: u32 = 65534;
    // SAFETY: takes numbers only.
    unsafe {
        let (user, group) =
            if libc::getuid() == 0 { (NOBODY, NOBODY) } else { (libc::getuid(), libc::getgid()) };
        assert_eq!(libc::setgid(group), 0);
        assert_eq!(libc::setuid(user), 0);
        assert_eq!((libc::getuid(), libc::getgid()), (user, group));
    }
}

/// With a handler, a violation is told with the thread's name and the call's number, and the process lives; without, it
/// is the process's end.
#[test]
fn a_violation_is_told_where_the_mode_lets_us() {
    let trapped = attempt("trap/", "0");
    let said = String::from_utf8_lossy(&trapped.stderr);
    let expected = format!("thread fc-console made system call {}, which it may not", libc::SYS_openat);
    assert!(trapped.status.success() && said.contains(&expected), "{}: {said}", trapped.status);
    assert_eq!(attempt("open/", "0").status.signal(), Some(libc::SIGSYS));
}

/// A process that gives up its rights while a VM runs is neither killed nor held up, and the VM goes on.
#[test]
fn a_process_may_change_its_user_while_a_vm_runs() {
    let output = attempt("user/", "0");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// What is not shown in `seccomp/tests/needed.rs`: the rules of vCPUs and the console alone.
#[test]
fn every_rule_of_a_vcpu_and_of_the_console_is_needed() {
    const OF_ANY_THREAD: [&str; 7] = ["write", "futex", "mmap", "munmap", "exit", "getpid", "rt_sigreturn"];
    for role in [Role::Vcpu, Role::Console] {
        let rules = role.rules().enumerate();
        for (place, rule) in rules.filter(|(_, rule)| !OF_ANY_THREAD.contains(&rule.call.name)) {
            let workload = match (rule.call.name, rule.why) {
                ("ioctl", why) if why.contains("IOAPIC") => "route",
                ("preadv2", _) if role == Role::Console => "echo",
                ("ioctl" | "preadv2" | "epoll_wait", _) => "pause",
                (call, _) => panic!("{role}: {call} has no workload"),
            };
            let name = format!("{role}: {} ({})", rule.call, rule.why);
            let with = attempt(&format!("{workload}/"), "0");
            assert!(with.status.success(), "{name}: {}", String::from_utf8_lossy(&with.stderr));
            let without = attempt(&format!("{workload}/{role}/{place}"), "0").status;
            assert_eq!(without.signal(), Some(libc::SIGSYS), "{name} is not needed: {without}");
        }
    }
}

/// What it costs, to be read: a clock decides nothing here.
#[test]
fn what_jails_cost_is_told() {
    let _alone = alone();
    let filters = |jail: Jail| {
        let start = Instant::now();
        for _ in 0..100 {
            for role in Role::ALL {
                jail.filter(role, -1).unwrap();
            }
        }
        start.elapsed() / 700
    };
    println!("compiling a role's list: {:?}", filters(Jail::enforce()));
    let run = |jail: Jail| {
        let mut times: Vec<_> = (0..40)
            .map(|_| {
                let builder = tiny(guests::power_off()).jail(jail);
                let start = Instant::now();
                builder.build().unwrap().start().unwrap().wait().unwrap();
                start.elapsed()
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    let (with, without) = (run(Jail::enforce()), run(Jail::off()));
    println!("from build to end, one vCPU: {with:?} with a filter, {without:?} without");
}
