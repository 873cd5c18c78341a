//! The program: what it prints, its exit statuses, and that it leaves the terminal as it was.
//!
//! `FIRECREST_BIN` names the program to test, where it is not the one that was built with this test.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::ffi::CStr;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, ptr, thread};

use firecrest_vmm::host;
use support::program::{Started, firecrest, program};
use support::pty::Terminal;
use support::{Scratch, elf, guests, until};

/// A guest's kernel file and the command that runs it.
fn run(name: &str, code: &[u8]) -> (Scratch, Command) {
    let file = Scratch::file(name, &elf::kernel(code));
    let mut command = program();
    command.args(["run", "--memory", "32", "--kernel"]).arg(file.as_ref());
    (file, command)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn hello() {
    let output = firecrest(&["hello"]);
    let lines = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        lines.starts_with("Hello from a Firecrest microVM: 128 MiB of memory, 1 CPU.\nIt took "),
        "{lines}"
    );
    assert!(lines.contains(" ms"), "{lines}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn closed_standard_files_are_nobody_elses() {
    for closed in [&[0][..], &[1], &[0, 1, 2]] {
        let (_file, mut command) = run("closed-files", guests::spin());
        command.stdout(Stdio::null());
        // SAFETY: safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                for fd in closed {
                    libc::close(*fd);
                }
                Ok(())
            })
        };
        let child = Started::new(&mut command);
        // By the time there is a vCPU, everything is open.
        let named =
            |task: &Path| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "fc-vcpu0\n");
        let tasks = format!("/proc/{}/task", child.0.id());
        until("there is a vCPU", || {
            std::fs::read_dir(&tasks).unwrap().any(|task| named(&task.unwrap().path()))
        });
        for fd in closed {
            let file = std::fs::read_link(format!("/proc/{}/fd/{fd}", child.0.id())).unwrap();
            assert_eq!(file, Path::new("/dev/null"), "{closed:?}");
        }
    }
}

#[test]
fn huge_pages_are_asked_for_only_where_that_is_said() {
    if host_has_no_huge_pages() {
        println!(
            "SKIPPED huge_pages_are_asked_for_only_where_that_is_said: this host has no transparent huge pages"
        );
        return;
    }
    for (options, asked) in [(&[][..], false), (&["--huge-pages"][..], true)] {
        let (_file, mut command) = run("huge-pages", guests::spin());
        let child = spinning(command.args(options));
        let mappings = std::fs::read_to_string(format!("/proc/{}/smaps", child.0.id())).unwrap();
        let flags = mappings.lines().filter(|line| line.starts_with("VmFlags:"));
        let has = flags.filter(|line| line.split_whitespace().any(|flag| flag == "hg")).count();
        assert_eq!(has, usize::from(asked), "{options:?}: {mappings}");
    }
}

fn host_has_no_huge_pages() -> bool {
    !Path::new("/sys/kernel/mm/transparent_hugepage/enabled").exists()
}

#[test]
fn doctor() {
    let output = firecrest(&["doctor"]);
    let lines = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let flavour = host::check("/dev/kvm").unwrap().to_string();
    for part in
        ["/dev/kvm", &flavour, "nx_huge_pages", "/dev/net/tun", "Landlock", "user namespaces", "Hello from"]
    {
        assert!(lines.contains(part), "{part:?} is missing: {lines}");
    }
}

#[test]
fn help_and_version() {
    for args in
        [&["--help"][..], &["-h"], &["run", "--help"], &["hello", "--help"], &["run", "-m", "1", "-h"]]
    {
        let output = firecrest(args);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let help = text(&output.stdout);
        for part in [
            "--kernel",
            "--initrd",
            "--cmdline",
            "--memory",
            "--cpus",
            "--protocol",
            "--block",
            "--net",
            "--vsock",
            "--lock",
            "Ctrl-A x",
        ] {
            assert!(help.contains(part), "{args:?}: {part} is missing");
        }
        for status in [0, 1, 2, 16, 17, 18, 19] {
            assert!(help.contains(&format!("  {status:>2}  ")), "{args:?}: exit status {status} is missing");
        }
        assert!(help.lines().all(|line| line.len() <= 90), "{help}");
    }
    let output = firecrest(&["--version"]);
    assert_eq!(text(&output.stdout), concat!("firecrest ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// Asserts on the exit status, and that stderr is one line that says all this.
fn fails(args: &[&str], status: i32, words: &[&str]) {
    let output = firecrest(args);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {error}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
    assert!(error.starts_with("firecrest: ") && error.ends_with('\n'), "{args:?}: {error}");
    assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{args:?} does not say {word:?}: {error}");
    }
}

#[test]
fn mistakes_in_the_usage() {
    fails(&[], 2, &["run, hello or doctor", "--help"]);
    fails(&["fly"], 2, &["fly", "--help"]);
    fails(&["--fly"], 2, &["--fly"]);
    fails(&["run"], 2, &["--kernel"]);
    fails(&["run", "--kernel"], 2, &["--kernel"]);
    fails(&["run", "vmlinux"], 2, &["vmlinux"]);
    fails(&["run", "-k", "vmlinux", "--fly"], 2, &["--fly"]);
    fails(&["run", "-k", "vmlinux", "--memory", "much"], 2, &["much"]);
    fails(&["run", "-k", "vmlinux", "--memory", "-1"], 2, &["-1"]);
    fails(&["run", "-k", "vmlinux", "--cpus", "1.5"], 2, &["1.5"]);
    fails(&["run", "-k", "vmlinux", "--protocol", "multiboot"], 2, &["multiboot", "pvh"]);
    fails(&["run", "-k", "vmlinux", "--jail", "soft"], 2, &["soft", "enforce"]);
    fails(&["hello", "world"], 2, &["world"]);
    fails(&["doctor", "--verbose"], 2, &["--verbose"]);
}

#[test]
fn errors() {
    let kernel = Scratch::file("errors", &elf::kernel(guests::power_off()));
    let kernel = kernel.as_ref().to_str().unwrap();
    fails(&["run", "-k", "/nonexistent/vmlinux"], 1, &["/nonexistent/vmlinux", "No such file"]);
    fails(&["run", "-k", "/dev/null"], 1, &["/dev/null", "not a regular file"]);
    fails(&["run", "-k", kernel, "-i", "/nonexistent/initrd"], 1, &["/nonexistent/initrd", "No such file"]);
    fails(&["run", "-k", kernel, "-m", "15"], 1, &["memory", "15728640"]);
    fails(&["run", "-k", kernel, "-m", "18446744073709551615"], 1, &["memory"]);
    fails(&["run", "-k", kernel, "-n", "65"], 1, &["65 vCPUs"]);
    fails(&["run", "-k", kernel, "-c", &"x".repeat(5000)], 1, &["command line", "5000"]);
    fails(&["run", "-k", kernel, "-p", "pvh"], 1, &["PVH"]);
}

#[test]
fn exit_statuses() {
    for (name, code, status, words) in [
        ("off", guests::power_off(), 0, ""),
        ("keyboard", guests::reset_keyboard(), 16, "keyboard"),
        ("acpi", guests::reset_acpi(), 16, "ACPI"),
        ("fault", guests::triple_fault(), 16, "triple fault"),
        ("panic", guests::panic(), 17, "panicked"),
        ("crash", guests::jump_into_nothing(), 18, "20000000"),
    ] {
        let (_file, mut command) = run(name, code);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{name}: {output:?}");
        let said = text(&output.stderr);
        assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{name}: {said}");
    }
}

#[test]
fn passes_every_option_on() {
    let kernel = Scratch::file("options", &elf::kernel(guests::command_line()));
    let output =
        program().args(["run", "-k"]).arg(kernel.as_ref()).args(["-n", "2", "-c", "a b"]).output().unwrap();
    assert_eq!(text(&output.stdout), "a b", "{output:?}");
    let output = program().args(["run", "-k"]).arg(kernel.as_ref()).args(["-p", "linux"]).output().unwrap();
    assert_eq!(text(&output.stdout), "console=ttyS0 panic=-1", "{output:?}");

    let kernel = Scratch::file("options-pvh", &elf::pvh_kernel(guests::pvh_command_line()));
    let output =
        program().args(["run", "-k"]).arg(kernel.as_ref()).args(["-p", "pvh", "-c", "x"]).output().unwrap();
    assert_eq!(text(&output.stdout), "x", "{output:?}");

    let kernel = Scratch::file("options-initrd-kernel", &elf::kernel(guests::initrd()));
    let initrd = Scratch::file("options-initrd", b"an initial RAM disk");
    let mut command = program();
    command.args(["run", "-k"]).arg(kernel.as_ref()).arg("-i").arg(initrd.as_ref());
    let output = command.output().unwrap();
    assert_eq!(text(&output.stdout), "an initial RAM disk", "{output:?}");
}

#[test]
fn loses_nothing_on_a_pipe() {
    let (_file, mut command) = run("ten-kib", guests::ten_kib());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let expected: Vec<u8> = (b'a'..=b'z').cycle().take(10240).collect();
    assert!(output.stdout == expected, "{} bytes", output.stdout.len());
}

#[test]
fn reads_input_from_a_pipe() {
    let (_file, mut command) = run("echo", guests::echo());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // The escape for terminals has no meaning here.
    child.stdin.take().unwrap().write_all(b"one\x01x two\nq").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), "one\x01x two\nq");
}

#[test]
fn runs_with_its_input_closed() {
    let (_file, mut command) = run("closed", guests::ten_kib());
    // SAFETY: closing a descriptor is safe between fork and exec.
    unsafe {
        command.pre_exec(|| if libc::close(0) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) })
    };
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout.len(), 10240);
}

#[test]
fn runs_on_when_nobody_reads_its_output() {
    let (_file, mut command) = run("unread", guests::ten_kib());
    let mut child = Started::new(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    drop(child.0.stdout.take());
    assert_eq!(child.end().code(), Some(0));
}

/// Starts a guest that spins, and waits until it does.
fn spinning(command: &mut Command) -> Started {
    let mut child = Started::new(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut byte = [0];
    child.0.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"!");
    child
}

/// By name and mode of seccomp, the threads of a program's machine.
fn jails(started: &Started) -> Vec<(String, String)> {
    let field = |text: &str, name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    std::fs::read_dir(format!("/proc/{}/task", started.0.id()))
        .unwrap()
        // The program's own threads may end meanwhile.
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(|status| (field(&status, "Name:"), field(&status, "Seccomp:")))
        .filter(|(name, _)| name.starts_with("fc-"))
        .collect()
}

#[test]
fn jails_its_machines_threads_unless_it_is_told_not_to() {
    for (jail, mode) in [(None, "2"), (Some("enforce"), "2"), (Some("log"), "2"), (Some("off"), "0")] {
        let (_kernel, mut command) = run("jail", guests::spin());
        command.args(jail.map(|jail| ["--jail", jail]).into_iter().flatten());
        let started = spinning(&mut command);
        let jails = jails(&started);
        let names: Vec<_> = jails.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["fc-vcpu0", "fc-console"], "{jail:?}");
        assert!(jails.iter().all(|(_, seccomp)| seccomp == mode), "{jail:?}: {jails:?}");
    }
}

#[test]
fn stops_at_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let (_file, mut command) = run("signals", guests::spin());
        let mut child = spinning(&mut command);
        child.send(signal);
        let status = child.end();
        assert_eq!(status.code(), Some(19), "signal {signal}: {status}");
    }
}

/// A user without room for queued signals can still stop a guest: the kick must not be one that is queued.
#[test]
fn stops_where_no_signal_can_be_queued() {
    let (_file, mut command) = run("queued", guests::spin());
    // SAFETY: setting a limit is safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            if libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const none) == 0 {
                return Ok(());
            }
            Err(io::Error::last_os_error())
        })
    };
    let mut child = spinning(&mut command);
    child.send(libc::SIGTERM);
    assert_eq!(child.end().code(), Some(19));
}

#[test]
fn a_second_signal_does_not_wait_for_the_output() {
    let (_file, mut command) = run("stuck", guests::dots());
    let mut child = Started::new(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    // More than the pipe holds. Nobody reads it.
    let pipe = child.0.stdout.as_ref().unwrap().as_raw_fd();
    let waiting = || {
        let mut count: libc::c_int = 0;
        // SAFETY: an open pipe, and room for the number of bytes in it.
        unsafe { libc::ioctl(pipe, libc::FIONREAD, &raw mut count) };
        count
    };
    until("a full pipe", || {
        let before = waiting();
        thread::sleep(Duration::from_millis(200));
        before != 0 && before == waiting()
    });
    child.send(libc::SIGTERM);
    thread::sleep(Duration::from_millis(100));
    assert!(!child.has_ended(), "ended without its output");
    child.send(libc::SIGTERM);
    assert_eq!(child.end().code(), Some(19));
}

#[test]
fn leaves_ignored_signals_ignored() {
    let (_file, mut command) = run("nohup", guests::spin());
    // SAFETY: setting a signal's disposition is safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        })
    };
    let mut child = spinning(&mut command);
    child.send(libc::SIGHUP);
    thread::sleep(Duration::from_millis(100));
    assert!(!child.has_ended(), "ended at a signal that was ignored");
    child.send(libc::SIGTERM);
    assert_eq!(child.end().code(), Some(19));
}

/// Runs a guest on a terminal, does something to it once it has written a byte, and asserts that it ends with this
/// status and the terminal is then as it was.
fn on_a_terminal(name: &str, code: &[u8], status: i32, act: impl FnOnce(&mut Terminal, &Started)) -> String {
    let (_file, mut command) = run(name, code);
    let mut terminal = Terminal::new();
    let before = terminal.settings();
    assert!(!before.is_raw());
    let mut child = Started::new(terminal.of(&mut command));
    act(&mut terminal, &child);
    let ended = child.end();
    assert_eq!(terminal.settings(), before, "{name}: the terminal was changed");
    assert_eq!(ended.code(), Some(status), "{name}: {ended}, signal {:?}", ended.signal());
    // The reader of the terminal's other end may be behind.
    until("the hint", || terminal.screen.text().contains("Ctrl-A x"));
    terminal.screen.text()
}

fn until_raw(terminal: &Terminal) {
    until("a raw terminal", || terminal.settings().is_raw());
}

#[test]
fn passes_keys_on_and_restores_the_terminal() {
    let screen = on_a_terminal("keys", guests::echo(), 0, |terminal, _| {
        until_raw(terminal);
        // Ctrl-C, Ctrl-D and Ctrl-Z are the guest's; so are a Ctrl-A twice and an x by itself.
        terminal.press(b"[\x03\x04\x1ax\r\x01\x01]");
        until("the echo", || terminal.screen.text().contains(']'));
        terminal.press(b"q");
        until("the last echo", || terminal.screen.text().contains('q'));
    });
    assert!(screen.contains("[\x03\x04\x1ax\r\x01]q"), "{screen:?}");
}

#[test]
fn the_escape_stops_the_guest() {
    on_a_terminal("escape", guests::spin(), 19, |terminal, _| {
        until_raw(terminal);
        terminal.press(b"abc\x01x");
    });
}

#[test]
fn restores_the_terminal_at_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        on_a_terminal("terminal-signals", guests::spin(), 19, |terminal, child| {
            until_raw(terminal);
            child.send(signal);
        });
    }
}

#[test]
fn restores_the_terminal_at_every_end() {
    let wait_a_little = |_: &mut Terminal, _: &Started| {};
    on_a_terminal("terminal-reset", guests::reset_acpi(), 16, wait_a_little);
    on_a_terminal("terminal-panic", guests::panic(), 17, wait_a_little);
    on_a_terminal("terminal-crash", guests::jump_into_nothing(), 18, wait_a_little);
}

/// Why something that needs root cannot be tested here.
fn not_root() -> Option<&'static str> {
    // SAFETY: takes nothing and cannot fail.
    (unsafe { libc::geteuid() } != 0).then_some("needs root")
}

#[test]
fn says_what_to_do_without_kvm() {
    if let Some(reason) = not_root() {
        println!("SKIPPED says_what_to_do_without_kvm: {reason}");
        return;
    }
    /// Hides `/dev` below an empty file system, for this process alone.
    fn hide_devices() -> io::Result<()> {
        let mount = |kind: Option<&CStr>, target: &CStr, flags| {
            let kind = kind.map_or(ptr::null(), CStr::as_ptr);
            // SAFETY: C strings that live until the call returns, or null where that is allowed.
            unsafe { libc::mount(c"none".as_ptr(), target.as_ptr(), kind, flags, ptr::null()) }
        };
        // SAFETY: takes no pointers.
        let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) };
        let hidden = unshared == 0
            && mount(None, c"/", libc::MS_REC | libc::MS_PRIVATE) == 0
            && mount(Some(c"tmpfs"), c"/dev", 0) == 0;
        if hidden { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    let kernel = Scratch::file("no-kvm", &elf::kernel(guests::power_off()));
    let kernel = kernel.as_ref().to_str().unwrap();
    for args in [&["hello"][..], &["doctor"], &["run", "-k", kernel]] {
        let mut command = program();
        // SAFETY: only system calls, which are safe between fork and exec.
        let output = unsafe { command.args(args).pre_exec(hide_devices) }.output();
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                println!("SKIPPED says_what_to_do_without_kvm: no mount namespaces: {error}");
                return;
            }
        };
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        let error = text(&output.stderr);
        for part in ["no KVM at /dev/kvm", "module", "virtualisation"] {
            assert!(error.contains(part), "{args:?} does not say {part:?}: {error}");
        }
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn says_what_to_do_without_permission() {
    if let Some(reason) = not_root() {
        println!("SKIPPED says_what_to_do_without_permission: {reason}");
        return;
    }
    /// Becomes nobody.
    fn give_up_root() -> io::Result<()> {
        // SAFETY: no pointers but a null one for a list of no groups.
        let given_up = unsafe {
            libc::setgroups(0, ptr::null()) == 0 && libc::setgid(65534) == 0 && libc::setuid(65534) == 0
        };
        if given_up { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    let mut command = program();
    // SAFETY: only system calls, which are safe between fork and exec.
    let output = match unsafe { command.arg("hello").pre_exec(give_up_root) }.output() {
        Ok(output) => output,
        Err(error) => {
            println!("SKIPPED says_what_to_do_without_permission: nobody cannot run the program: {error}");
            return;
        }
    };
    if output.status.success() {
        println!("SKIPPED says_what_to_do_without_permission: everybody may open /dev/kvm here");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = text(&output.stderr);
    for part in ["permission", "/dev/kvm", "group"] {
        assert!(error.contains(part), "does not say {part:?}: {error}");
    }
}
