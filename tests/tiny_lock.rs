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
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Output;

use firecrest_vmm::lock;
use support::lock_attempts;
use support::locked::{
    self, EVERYTHING, Guest, NOBODY, TestCgroup, as_nobody, namespace, not_root, stops, text, threads,
    working,
};
use support::{Scratch, guests};

const NONE: &str = "0000000000000000";
const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

#[test]
fn every_thread_has_no_capability_and_gains_no_privilege() {
    let guest = Guest::new("rights", guests::spin());
    let start = |options: &[&str]| {
        let mut command = guest.run(options);
        if not_root().is_none() {
            // SAFETY: only system calls, which are safe between fork and exec.
            unsafe { command.pre_exec(raise_ambient) };
        }
        working(&mut command)
    };
    let child = start(&["--lock"]);
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
        let child = start(&[]);
        let main = locked::status(format!("/proc/{}/status", child.0.id()));
        assert_eq!(main["NoNewPrivs"], "0");
        assert!(SETS.iter().all(|set| main[*set] != NONE), "{main:?}");
        stops(child);
    }
}

/// Gives the process a capability that is inheritable and ambient as well.
fn raise_ambient() -> io::Result<()> {
    const NET_ADMIN: u32 = 12;
    // Effective, permitted and inheritable ones below 32, and the same of those above.
    let (mut header, mut sets) = ([0x2008_0522_u32, 0], [0_u32; 6]);
    // SAFETY: a header and two times three sets, as the kernel reads and writes them.
    let raised = unsafe {
        libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) == 0
            && {
                sets[2] |= 1 << NET_ADMIN;
                libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) == 0
            }
            && libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, NET_ADMIN, 0, 0) == 0
    };
    if raised { Ok(()) } else { Err(io::Error::last_os_error()) }
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
            let root: Vec<_> = fs::read_dir(format!("/proc/{pid}/root")).unwrap().collect();
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
        let mut command = guest.run(&[options]);
        // SAFETY: two groups, and a call that is safe between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::setgroups(2, [4, 24].as_ptr()) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            })
        };
        let child = working(&mut command);
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
    if not_root().is_none() {
        let socket = format!("/firecrest-{}", std::process::id());
        let vsock = format!("cid=3,path={socket}");
        let output = guest.run(&["--lock=namespaces", "--vsock", &vsock]).output().unwrap();
        complains(&output, 1, &["cannot keep /", "directory of its own"]);
        assert!(!PathBuf::from(socket).exists());
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

/// Of this process alone, in a user namespace where it is nobody and of which it loses all rights when it executes
/// something.
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
fn a_guardian_that_is_killed_early_takes_its_child_along() {
    lock_attempts::succeeds("orphan", false);
}

#[test]
fn a_violation_ends_the_guardian_as_it_does_the_child() {
    let output = lock_attempts::attempt("violation", false);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(128 + libc::SIGSYS), "{said}");
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
