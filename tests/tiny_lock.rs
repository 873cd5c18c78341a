//! `firecrest run --lock`, seen from outside: what the process has given up, what it can still do, and what it says of what
//! it could not do. And the library's lock, tried from inside, in processes of the test's own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use firecrest_vmm::lock;
use support::lock_attempts;
use support::locked::{
    self, Guest, NOBODY, TestCgroup, as_nobody, namespace, not_root, stops, text, threads, working,
};
use support::program::Started;
use support::pty::{self, Terminal};
use support::{Scratch, guests, until};

const EVERYTHING: &str = "--lock=namespaces,pid-namespace,uid=65534,gid=65534";

const NONE: &str = "0000000000000000";
const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

#[test]
fn every_thread_has_no_capability_and_gains_no_privilege() {
    let guest = Guest::new("rights", guests::spin());
    let child = working(&mut guest.run(&["--lock"]));
    let all = threads(child.0.id());
    assert!(all.len() > 3, "{}", all.len());
    for thread in all {
        let name = &thread["Name"];
        for set in SETS {
            if set == "CapBnd" && not_root().is_some() {
                continue;
            }
            assert_eq!(thread[set], NONE, "{name}: {set}");
        }
        assert_eq!(thread["NoNewPrivs"], "1", "{name}");
    }
    stops(child);
    // The same without a lock is another process.
    if not_root().is_none() {
        let child = working(&mut guest.run(&[]));
        let main = locked::status(format!("/proc/{}/status", child.0.id()));
        assert_eq!(main["NoNewPrivs"], "0");
        assert!(main["CapEff"] != NONE && main["CapBnd"] != NONE, "{main:?}");
        stops(child);
    }
}

#[test]
fn inherited_descriptors_are_closed() {
    let guest = Guest::new("descriptors", guests::spin());
    let secret = Scratch::file("lock-secret", b"secret");
    let file = File::open(secret.as_ref()).unwrap();
    let inherited = |options: &[&str]| {
        let mut command = guest.run(options);
        let fd = file.as_raw_fd();
        // SAFETY: duplicating a descriptor is safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                for number in [30, 47, 300] {
                    if libc::dup2(fd, number) < 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                Ok(())
            })
        };
        let child = working(&mut command);
        let links = fs::read_dir(format!("/proc/{}/fd", child.0.id())).unwrap();
        let links = links.map(|link| fs::read_link(link.unwrap().path()).unwrap());
        let count = links.filter(|link| link == secret.as_ref()).count();
        stops(child);
        count
    };
    assert_eq!(inherited(&[]), 3);
    assert_eq!(inherited(&["--lock"]), 0);
}

#[test]
fn limits_are_set_and_it_can_be_neither_dumped_nor_traced() {
    let guest = Guest::new("limits", guests::spin());
    let socket = guest.directory.join("socket");
    let vsock = format!("cid=3,path={}", socket.display());
    let child = working(&mut guest.run(&["--lock", "--vsock", &vsock]));
    let pid = child.0.id();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    };
    for name in ["Max core file size", "Max msgqueue size", "Max nice priority", "Max realtime priority"] {
        assert_eq!(limit(name), ("0".to_owned(), "0".to_owned()), "{name}");
    }
    let (soft, hard) = limit("Max open files");
    assert_eq!(soft, hard);
    // Enough for the connections of a socket device, and no more.
    assert!((2_100..2_300).contains(&soft.parse().unwrap()), "{soft}");
    for name in ["Max address space", "Max file size", "Max data size"] {
        let own = fs::read_to_string("/proc/self/limits").unwrap();
        let own = own.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(limits.contains(&own), "{name} is left alone");
    }
    stops(child);

    if not_root().is_some() {
        return;
    }
    // What cannot be traced belongs to root in /proc.
    for (options, owner) in [(&["--lock"][..], 0), (&[], NOBODY)] {
        let child = working(as_nobody(&mut guest.run(options), &guest.directory));
        assert_eq!(
            fs::metadata(format!("/proc/{}/status", child.0.id())).unwrap().uid(),
            owner,
            "{options:?}"
        );
        stops(child);
    }
}

#[test]
fn namespaces_are_its_own_and_the_root_is_empty() {
    if let Some(reason) = not_root() {
        println!("SKIPPED namespaces_are_its_own_and_the_root_is_empty: {reason}, to look at them");
        return;
    }
    let guest = Guest::new("namespaces", guests::spin());
    let own = std::process::id();
    let kinds = ["mnt", "net", "ipc", "uts", "pid", "user"];
    let others = |pid| kinds.into_iter().filter(move |kind| namespace(pid, kind) != namespace(own, kind));
    for (options, expected, by_nobody) in [
        ("--lock", &[][..], false),
        ("--lock=namespaces", &["mnt", "net", "ipc", "uts"], false),
        ("--lock=pid-namespace", &["pid"], false),
        ("--lock=namespaces,pid-namespace", &["mnt", "net", "ipc", "uts", "pid"], false),
        (EVERYTHING, &["mnt", "net", "ipc", "uts", "pid"], false),
        ("--lock=namespaces", &["mnt", "net", "ipc", "uts", "user"], true),
        ("--lock=namespaces,pid-namespace", &kinds, true),
    ] {
        let mut command = guest.run(&[options]);
        if by_nobody {
            as_nobody(&mut command, &guest.directory);
        }
        let child = working(&mut command);
        let has_guardian = options.contains("pid");
        let pid = if has_guardian { locked::child_of(child.0.id()) } else { child.0.id() };
        let differ: Vec<_> = others(pid).collect();
        assert!(expected.iter().all(|kind| differ.contains(kind)), "{options}: {differ:?}");
        assert!(by_nobody || differ == expected, "{options}: {differ:?}");
        if options.contains("namespaces") {
            let root: Vec<_> = fs::read_dir(format!("/proc/{pid}/root/")).unwrap().collect();
            assert!(root.is_empty(), "{options}: {root:?}");
            let at = |name| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
            assert_eq!(at("cwd"), at("root"));
            let interfaces = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
            assert_eq!(interfaces.lines().count(), 3, "the loopback alone: {interfaces}");
        }
        for thread in threads(pid) {
            assert!(SETS.iter().all(|set| thread[*set] == NONE), "{options}: {thread:?}");
            let alone = thread["NSpid"].split_whitespace().count() == if has_guardian { 2 } else { 1 };
            assert!(alone, "{options}: {thread:?}");
        }
        stops(child);
    }
}

#[test]
fn becomes_another_user() {
    if let Some(reason) = not_root() {
        println!("SKIPPED becomes_another_user: {reason}");
        return;
    }
    let guest = Guest::new("user", guests::spin());
    for options in ["--lock=uid=1234,gid=5678", "--lock=uid=1234,gid=5678,namespaces,pid-namespace"] {
        let child = working(&mut guest.run(&[options]));
        let pid = if options.contains("pid") { locked::child_of(child.0.id()) } else { child.0.id() };
        for thread in threads(pid) {
            assert_eq!(thread["Uid"], "1234\t1234\t1234\t1234");
            assert_eq!(thread["Gid"], "5678\t5678\t5678\t5678");
            assert_eq!(thread["Groups"], "");
            assert!(SETS.iter().all(|set| thread[*set] == NONE), "{thread:?}");
        }
        stops(child);
    }
}

#[test]
fn joins_a_cgroup() {
    if let Some(reason) = not_root() {
        println!("SKIPPED joins_a_cgroup: {reason}");
        return;
    }
    let Some((mount, _)) = locked::cgroups() else {
        println!("SKIPPED joins_a_cgroup: no cgroup v2 file system is mounted");
        return;
    };
    let cgroup = match TestCgroup::new(&mount, "joins") {
        Ok(cgroup) => cgroup,
        Err(error) => {
            println!("SKIPPED joins_a_cgroup: no cgroup can be made in {}: {error}", mount.display());
            return;
        }
    };
    let guest = Guest::new("cgroup", guests::spin());
    let option = format!("--lock=pid-namespace,cgroup={}", cgroup.0.display());
    let child = working(&mut guest.run(&[&option]));
    let members: Vec<u32> = cgroup.read("cgroup.procs").lines().map(|pid| pid.parse().unwrap()).collect();
    assert!(
        members.contains(&child.0.id()) && members.contains(&locked::child_of(child.0.id())),
        "{members:?}"
    );
    stops(child);
    assert_eq!(cgroup.read("cgroup.procs"), "");
}

/// That its kernel enforces them is for Linux guests' hosts: `tests/linux_lock.rs`.
#[test]
fn a_limit_without_its_controller_is_told() {
    if let Some(reason) = not_root() {
        println!("SKIPPED a_limit_without_its_controller_is_told: {reason}");
        return;
    }
    let Some((mount, _)) = locked::cgroups() else {
        println!("SKIPPED a_limit_without_its_controller_is_told: no cgroup v2 file system is mounted");
        return;
    };
    let Ok(cgroup) = TestCgroup::new(&mount, "limits").and_then(|outer| {
        // Nobody gives this one's children any controller.
        TestCgroup::new(&outer.0, "inner").map(|inner| (outer, inner))
    }) else {
        println!(
            "SKIPPED a_limit_without_its_controller_is_told: no cgroup can be made in {}",
            mount.display()
        );
        return;
    };
    let guest = Guest::new("cgroup-limits", guests::spin());
    let path = cgroup.1.0.display().to_string();
    for (limit, file) in [("memory=64", "memory.max"), ("cpu=50", "cpu.max"), ("pids=9", "pids.max")] {
        let output = guest.run(&[&format!("--lock=cgroup={path},{limit}")]).output().unwrap();
        complains(&output, 1, &[&path, file, "cgroup.subtree_control"]);
    }
    assert_eq!(cgroup.1.read("cgroup.procs"), "");
    drop(cgroup.1);
}

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
        let mut child = echo.run(&[lock]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
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

fn complains(output: &Output, status: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(output.stdout.is_empty(), "nothing was started");
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "{word} in {said}");
    }
}

#[test]
fn mistakes_are_named_before_anything_starts() {
    let guest = Guest::new("lock-mistakes", guests::spin());
    for (words, complaint) in [
        ("open", "--lock open: there is no `open`"),
        ("strict,,", "there is no ``"),
        ("uid=1000", "give both uid=N and gid=N"),
        ("gid=1000", "give both uid=N and gid=N"),
        ("uid=nobody,gid=0", "uid: `nobody` is not a number it can take"),
        ("uid=-1,gid=0", "uid: `-1` is not a number it can take"),
        ("uid=4294967296,gid=0", "uid: `4294967296` is not a number it can take"),
        ("memory=64", "memory, cpu and pids need cgroup=DIR"),
        ("cpu=50", "need cgroup=DIR"),
        ("pids=5", "need cgroup=DIR"),
        ("cgroup=", "cgroup needs a value"),
        ("cgroup=/tmp,memory=lots", "memory: `lots` is not a number it can take"),
    ] {
        complains(&guest.run(&[&format!("--lock={words}")]).output().unwrap(), 2, &[complaint]);
    }
    for (words, complaints) in [
        ("cgroup=/tmp", &["/tmp", "not a directory of a cgroup v2"][..]),
        ("cgroup=/proc/self/status", &["/proc/self/status", "not a directory of a cgroup v2"]),
        ("cgroup=/nonexistent/group", &["/nonexistent/group", "No such file"]),
        ("uid=4294967295,gid=0", &["4294967295", "no user"]),
        ("uid=0,gid=4294967295", &["4294967295", "no user"]),
    ] {
        complains(&guest.run(&[&format!("--lock={words}")]).output().unwrap(), 1, complaints);
    }
    if let Some((mount, _)) = locked::cgroups() {
        for (limit, complaint) in [
            ("memory=0", "memory in MiB cannot be 0"),
            ("cpu=0", "CPU time in percent cannot be 0"),
            ("cpu=99999999", "CPU time in percent cannot be 99999999"),
            ("pids=0", "number of threads cannot be 0"),
        ] {
            let words = format!("--lock=cgroup={},{limit}", mount.display());
            complains(&guest.run(&[&words]).output().unwrap(), 1, &[complaint]);
        }
    }
    // With the lock, too, a mistake in the rest is told.
    complains(
        &guest.run(&["--lock", "--block", "path=/nonexistent/disk"]).output().unwrap(),
        1,
        &["/nonexistent/disk"],
    );
    let output =
        guest.run(&["--lock=namespaces,pid-namespace", "--block", "path=/nonexistent/disk"]).output();
    complains(&output.unwrap(), 1, &["/nonexistent/disk"]);
}

#[test]
fn what_takes_rights_is_refused_without_them() {
    if let Some(reason) = not_root() {
        println!("SKIPPED what_takes_rights_is_refused_without_them: {reason}, to give them up");
        return;
    }
    let guest = Guest::new("lock-rights", guests::spin());
    let nobody = |options: &[&str]| as_nobody(&mut guest.run(options), &guest.directory).output().unwrap();
    complains(&nobody(&["--lock=uid=1000,gid=1000"]), 1, &["user 1000", "group 1000", "CAP_SETUID"]);
    if let Some((mount, _)) = locked::cgroups() {
        let cgroup = TestCgroup::new(&mount, "forbidden").unwrap();
        let path = cgroup.0.display().to_string();
        complains(
            &nobody(&[&format!("--lock=cgroup={path}")]),
            1,
            &[&path, "cgroup.procs", "Permission denied"],
        );
    }
    // Where no more user namespaces may be made.
    for lock in ["--lock=namespaces", "--lock=pid-namespace"] {
        let mut command = guest.run(&[lock]);
        as_nobody(&mut command, &guest.directory);
        // SAFETY: only system calls, which are safe between fork and exec.
        let output = unsafe { command.pre_exec(forbid_user_namespaces) }.output();
        complains(&output.unwrap(), 1, &["without CAP_SYS_ADMIN", "max_user_namespaces"]);
    }
}

/// Of this process alone, in a user namespace where it is nobody and of which it loses all rights when it executes something.
fn forbid_user_namespaces() -> io::Result<()> {
    // SAFETY: strings that end, and as many bytes as are said.
    let forbidden = unsafe {
        libc::unshare(libc::CLONE_NEWUSER) == 0 && {
            let limit = libc::open(c"/proc/sys/user/max_user_namespaces".as_ptr(), libc::O_WRONLY);
            libc::write(limit, c"0".as_ptr().cast(), 1) == 1
        }
    };
    if forbidden { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What it says it could not do, it could not do; and nobody has to know that who asks for strictness.
#[test]
fn what_it_could_not_do_is_told() {
    if let Some(reason) = not_root() {
        println!("SKIPPED what_it_could_not_do_is_told: {reason}, to give it up");
        return;
    }
    let guest = Guest::linux("lock-told", guests::power_off());
    let nobody = |options: &str| as_nobody(&mut guest.run(&[options]), &guest.directory).output().unwrap();
    let told = nobody("--lock");
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    let said = text(&told.stderr);
    assert!(said.lines().all(|line| line.starts_with("firecrest: --lock: ")), "{said}");
    assert!(said.contains("bounding set stays"), "{said}");
    assert_eq!(said.contains("Landlock is not in this kernel"), lock::landlock_abi().is_err(), "{said}");
    complains(&nobody("--lock=strict"), 1, &["not as strict as asked for", "bounding set"]);

    // With namespaces, nobody lacks nothing but a Landlock, if the kernel has none.
    let told = nobody("--lock=namespaces,pid-namespace");
    let said = text(&told.stderr);
    assert_eq!(told.status.code(), Some(0), "{said}");
    assert_eq!(said.lines().count(), usize::from(lock::landlock_abi().is_err()), "{said}");
    let strict = nobody("--lock=strict,namespaces,pid-namespace");
    assert_eq!(
        strict.status.code(),
        Some(i32::from(lock::landlock_abi().is_err())),
        "{}",
        text(&strict.stderr)
    );
}

#[test]
fn one_attempt() {
    lock_attempts::one_attempt();
}

#[test]
fn landlock_denies_what_is_not_kept() {
    lock_attempts::succeeds("landlock", false);
}

#[test]
fn the_empty_root_holds_kept_sockets_alone() {
    lock_attempts::succeeds("root", false);
}

#[test]
fn nobody_can_have_an_empty_root() {
    if let Some(reason) = not_root() {
        println!("SKIPPED nobody_can_have_an_empty_root: {reason}, to become nobody");
        return;
    }
    lock_attempts::succeeds("root", true);
    lock_attempts::succeeds("rights", true);
    lock_attempts::succeeds("strict", true);
}

#[test]
fn a_process_with_threads_is_refused() {
    lock_attempts::succeeds("threads", false);
}

#[test]
fn threads_to_come_are_bound() {
    lock_attempts::succeeds("rights", false);
}

#[test]
fn descriptors_are_limited_to_what_was_asked_for() {
    lock_attempts::succeeds("descriptors", false);
}

#[test]
fn strictness_changes_nothing_before_it_refuses() {
    lock_attempts::succeeds("strict", false);
}

#[test]
fn the_guardian_cannot_be_named_from_inside() {
    let output = lock_attempts::attempt("pid", false);
    assert_eq!(output.status.code(), Some(77), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn a_violation_ends_the_guardian_as_it_does_the_child() {
    let output = lock_attempts::attempt("violation", false);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(128 + libc::SIGSYS), "{said}");
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

#[test]
fn a_socket_that_will_stay_is_told() {
    if let Some(reason) = not_root() {
        println!("SKIPPED a_socket_that_will_stay_is_told: {reason}");
        return;
    }
    lock_attempts::succeeds("socket", false);
}

/// What it costs, to be read: a clock decides nothing here.
#[test]
fn what_the_lock_costs_is_told() {
    let guest = Guest::linux("lock-cost", guests::power_off());
    let locks = ["", "--lock", "--lock=namespaces", "--lock=pid-namespace"];
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..20 {
        for (lock, times) in locks.iter().zip(&mut times) {
            let start = std::time::Instant::now();
            let options: &[&str] = if lock.is_empty() { &[] } else { &[lock] };
            assert_eq!(guest.run(options).output().unwrap().status.code(), Some(0));
            times.push(start.elapsed());
        }
    }
    for (lock, times) in locks.iter().zip(&mut times) {
        times.sort();
        println!("{:?} with `{lock}`", times[times.len() / 2]);
    }
}
