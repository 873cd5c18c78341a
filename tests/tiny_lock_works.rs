//! A locked program works as one that is not: console, signals, disks that grow, sockets, terminal; and the guardian of one
//! in a PID namespace is no different from it to whoever has started it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::locked::{self, EVERYTHING, Guest, not_root, text, working};
use support::program::Started;
use support::pty::{self, Terminal};
use support::{Scratch, guests, until};

/// All locks that this machine's user can have.
fn locks() -> Vec<&'static str> {
    let mut locks =
        vec!["--lock", "--lock=pid-namespace", "--lock=namespaces", "--lock=namespaces,pid-namespace"];
    if not_root().is_none() {
        locks.extend(["--lock=uid=65534,gid=65534", EVERYTHING]);
    }
    locks
}

#[test]
fn the_console_works_and_every_end_is_told() {
    let echo = Guest::linux("lock-echo", guests::echo());
    let ends = [
        (Guest::linux("lock-off", guests::power_off()), 0, ""),
        (Guest::linux("lock-reset", guests::reset_keyboard()), 16, "keyboard"),
        (Guest::linux("lock-panic", guests::panic()), 17, "panicked"),
        (Guest::linux("lock-crash", guests::jump_into_nothing()), 18, "20000000"),
    ];
    for lock in locks() {
        let mut command = echo.run(&[lock]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"one two\nq").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(0), "one two\nq".to_owned()),
            "{lock}"
        );
        for (guest, status, words) in &ends {
            let output = guest.run(&[lock]).output().unwrap();
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(*status), "{lock}: {said}");
            assert!(said.contains(words), "{lock}: {said}");
        }
    }
}

#[test]
fn signals_reach_it() {
    let spin = Guest::new("lock-signals", guests::spin());
    for lock in locks() {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
            let mut child = working(&mut spin.run(&[lock]));
            child.send(signal);
            assert_eq!(child.end().code(), Some(19), "{lock}: {signal}");
        }
    }
}

#[test]
fn a_disk_that_has_grown_is_told_to_the_guest_on_request() {
    let guest = Guest::new("lock-growing", guests::virtio_config_change());
    for lock in locks() {
        let disk = Scratch::file("lock-growing-disk", &[0; 4096]);
        let block = format!("path={},engine=io_uring", disk.as_ref().display());
        let mut child = working(&mut guest.run(&[lock, "--block", &block]));
        File::options().write(true).open(disk.as_ref()).unwrap().set_len(1 << 20).unwrap();
        child.send(libc::SIGUSR1);
        assert_eq!(child.end().code(), Some(0), "{lock}");
    }
}

#[test]
fn the_socket_is_reached_and_removed() {
    let guest = Guest::new("lock-socket", guests::spin());
    let ends = Guest::new("lock-socket-end", guests::virtio_ids());
    for lock in locks() {
        // By its whole name, and by one from here.
        for (name, path) in
            [(guest.directory.join("v"), guest.directory.join("v")), ("v".into(), guest.directory.join("v"))]
        {
            let vsock = format!("cid=3,path={}", name.display());
            for guest in [&guest, &ends] {
                let mut command = guest.run(&[lock, "--vsock", &vsock]);
                command.current_dir(path.parent().unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
                // SAFETY: safe between fork and exec.
                unsafe {
                    command.pre_exec(|| {
                        libc::umask(0o077);
                        Ok(())
                    })
                };
                let mut child = working(&mut command);
                child.send(libc::SIGTERM);
                assert!(matches!(child.end().code(), Some(0 | 19)), "{lock}");
                let mut said = String::new();
                child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                assert!(!path.exists(), "{lock}: {} is left: {said}", name.display());
                assert!(!said.contains("stays when"), "{said}");
            }
        }
    }
}

#[test]
fn the_terminal_is_the_guests_and_as_it_was_afterwards() {
    let guest = Guest::linux("lock-terminal", guests::echo());
    for lock in locks() {
        let mut terminal = Terminal::new();
        let before = terminal.settings();
        let mut child = Started::new(terminal.of(&mut guest.run(&[lock])));
        until("a raw terminal", || terminal.settings().is_raw());
        terminal.press(b"[\x03]");
        until("the echo", || terminal.screen.text().contains("[\x03]"));
        terminal.press(b"\x01x");
        assert_eq!(child.end().code(), Some(19), "{lock}: {}", terminal.screen.text());
        assert_eq!(terminal.settings(), before, "{lock}");
    }
}

#[test]
fn the_guardian_and_its_child_end_together() {
    let guest = Guest::new("guardian", guests::spin());
    let gone = |pid: u32| {
        !PathBuf::from(format!("/proc/{pid}/status")).exists() || {
            locked::status(format!("/proc/{pid}/status"))["State"].starts_with('Z')
        }
    };
    for lock in ["--lock=pid-namespace", "--lock=pid-namespace,namespaces", EVERYTHING] {
        if lock == EVERYTHING && not_root().is_some() {
            continue;
        }
        let mut child = working(&mut guest.run(&[lock]));
        let inside = locked::child_of(child.0.id());
        child.0.kill().unwrap();
        assert_eq!(child.end().signal(), Some(libc::SIGKILL));
        until("the end of what it guarded", || gone(inside));

        let mut child = working(&mut guest.run(&[lock]));
        let inside = locked::child_of(child.0.id());
        // SAFETY: takes no pointers; its parent has not ended, and waited for it only if it has.
        assert_eq!(unsafe { libc::kill(inside.try_into().unwrap(), libc::SIGKILL) }, 0);
        let end = child.end();
        assert_eq!(end.signal(), Some(libc::SIGKILL), "{lock}: it ends as its child did, not as {end}");
    }
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let guest = Guest::new("lock-hangup", guests::spin());
    for lock in ["--lock", "--lock=pid-namespace"] {
        let (master, side) = pty::pair();
        let mut command = guest.run(&[lock]);
        let mut child = working(pty::on(command.stdin(side)));
        drop(master);
        assert_eq!(child.end().code(), Some(19), "{lock}");
    }
}

/// In a PID namespace nothing would stop it: it would ask for the terminal on and on.
#[test]
fn in_the_background_of_a_terminal_it_waits_for_its_turn() {
    let guest = Guest::linux("lock-background", guests::echo());
    for lock in ["--lock", "--lock=pid-namespace"] {
        let mut terminal = Terminal::new();
        let run = guest.run(&[lock]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "set -m; \"$@\" & read -r line; fg", "sh"]);
        shell.arg(run.get_program()).args(run.get_args());
        let mut shell = Started::new(terminal.of(&mut shell));
        let children = |pid: u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        until("the program", || children(shell.0.id()).split_whitespace().count() == 1);
        let program = locked::child_of(shell.0.id());
        until("its stop", || locked::status(format!("/proc/{program}/status"))["State"].starts_with('T'));
        assert_eq!(children(program), "", "{lock}: it has not begun");
        assert!(!terminal.settings().is_raw());
        terminal.press(b"\n");
        until("a raw terminal", || terminal.settings().is_raw());
        terminal.press(b"q");
        assert_eq!(shell.end().code(), Some(0), "{lock}: {}", terminal.screen.text());
    }
}
