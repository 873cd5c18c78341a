//! A locked program runs a Linux guest that uses all of its devices; and locks tried on a kernel that has all they
//! ask for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Stdio;

use firecrest_vmm::lock;
use support::disk::{Disk, MIB};
use support::guest;
use support::guests;
use support::lock_attempts;
use support::locked::{self, Directory, Guest, TestCgroup, not_root, open_to_all, stops, text, working};
use support::net::{HOST, in_a_namespace, tap};
use support::program::{Started, program};
use support::streams::serve_for_ever;

/// A cgroup for which the kernel has the controllers.
fn cgroup(name: &str) -> Result<TestCgroup, String> {
    if let Some(reason) = not_root() {
        return Err(reason.to_owned());
    }
    let (mount, controllers) = locked::cgroups().ok_or("no cgroup v2 file system is mounted")?;
    if !["memory", "cpu", "pids"].iter().all(|name| controllers.contains(name)) {
        return Err(format!("{} has the controllers `{}` alone", mount.display(), controllers.trim()));
    }
    TestCgroup::new(&mount, name).map_err(|error| format!("no cgroup in {}: {error}", mount.display()))
}

#[test]
fn a_guest_uses_all_of_its_devices_under_every_lock() {
    let cgroup = match cgroup("all") {
        Ok(cgroup) => cgroup,
        Err(reason) => {
            println!("SKIPPED a_guest_uses_all_of_its_devices_under_every_lock: {reason}");
            return;
        }
    };
    in_a_namespace("a_guest_uses_all_of_its_devices_under_every_lock", move || {
        let limits = format!("cgroup={},memory=768,cpu=400,pids=100", cgroup.0.display());
        let locks = ["".to_owned(), format!("=namespaces,pid-namespace,uid=65534,gid=65534,{limits}")];
        tap(2, 1500);
        serve_for_ever(TcpListener::bind((HOST, 7000)).unwrap());
        for (number, lock) in locks.iter().enumerate() {
            let disk = Disk::empty(&format!("locked-{number}"), 64 * MIB);
            let directory = Directory::new(&format!("locked-vsock-{number}"));
            let socket = directory.join("vsock");
            let port = directory.join("vsock_7000");
            let listener = UnixListener::bind(&port).unwrap();
            open_to_all(&port);
            serve_for_ever(listener);

            let mut command = program();
            command.args(["run", "--cpus", "2", "--memory", "256", "--kernel"]);
            command.arg(guest::file("FIRECREST_GUEST_VMLINUX"));
            command
                .arg("--cmdline")
                .arg("console=ttyS0 quiet panic=-1 root=/dev/vda ro fc.run=all.sh fc.seconds=12");
            command.arg("--block").arg(format!("path={},ro", guest::file(guest::ROOTFS)));
            command.arg("--block").arg(format!("path={},engine=io_uring,queues=2", disk.path().display()));
            command.arg("--net").arg("tap=tap0,pairs=2");
            command.arg("--vsock").arg(format!("cid=3,path={}", socket.display()));
            command.arg(format!("--lock{lock}")).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = Started::new(&mut command);

            let mut said = String::new();
            let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
            for line in lines.map_while(Result::ok) {
                said += &format!("{line}\n");
            }
            let mut told = String::new();
            child.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
            assert_eq!(child.end().code(), Some(0), "--lock{lock}: {told}\n{said}");
            assert!(said.contains("FC run=all.sh rc=0"), "--lock{lock}: {told}\n{said}");
            for work in ["disk_kib", "net_rounds", "vsock_rounds"] {
                let value = said.lines().find_map(|line| line.strip_prefix(&format!("FC {work}=")));
                let value: u64 = value.unwrap().trim().parse().unwrap();
                println!("--lock{lock}: {work}: {value}");
                assert!(value > 0, "--lock{lock}: {work}");
            }
            print!("{told}");
            assert!(!socket.exists(), "--lock{lock}: the socket is left");
            disk.assert_clean();
        }
        assert!(cgroup.read("memory.peak").parse::<u64>().unwrap() > 50 << 20, "its memory is charged there");
    });
}

#[test]
fn a_cgroup_has_the_limits_and_the_process() {
    let cgroup = match cgroup("limits") {
        Ok(cgroup) => cgroup,
        Err(reason) => {
            println!("SKIPPED a_cgroup_has_the_limits_and_the_process: {reason}");
            return;
        }
    };
    let guest = Guest::new("cgroup", guests::spin());
    let at = format!("--lock=cgroup={}", cgroup.0.display());
    let child = working(&mut guest.run(&[&format!("{at},memory=64,cpu=150,pids=40")]));
    // A thread of KVM's own may be there as well.
    assert!(cgroup.read("cgroup.procs").lines().any(|pid| pid == child.0.id().to_string()));
    assert_eq!(cgroup.read("memory.max"), (64 << 20).to_string());
    assert_eq!(cgroup.read("cpu.max"), "150000 100000");
    assert_eq!(cgroup.read("pids.max"), "40");
    assert!(cgroup.read("memory.current").parse::<u64>().unwrap() > 0, "its memory is charged there");
    stops(child);
    // A thread that may not be is told by its name.
    let output = guest.run(&[&format!("{at},pids=1")]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot start thread fc-vcpu0"), "{}", text(&output.stderr));
}

/// Which Landlock this is about.
#[test]
fn the_kernel_has_a_landlock() {
    match lock::landlock_abi() {
        Ok(abi) => println!("Landlock ABI {abi}"),
        Err(error) => println!("SKIPPED the_kernel_has_a_landlock: {error}"),
    }
}

#[test]
fn what_a_landlock_leaves_open_is_told() {
    let Ok(abi) = lock::landlock_abi() else {
        println!("SKIPPED what_a_landlock_leaves_open_is_told: this kernel has none");
        return;
    };
    let guest = Guest::linux("landlock-told", guests::power_off());
    let told = |lock: &str| {
        let output = guest.run(&[lock]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let said = told("--lock");
    for (since, what) in [(3, "truncating files"), (4, "TCP"), (6, "abstract Unix sockets"), (6, "signals")] {
        assert_eq!(said.contains(what), abi < since, "ABI {abi}, {what}: {said}");
    }
    let said = told("--lock=namespaces");
    assert_eq!(said.contains("signals"), abi < 6, "{said}");
    assert!(!said.contains("TCP") && !said.contains("truncating"), "{said}");
    assert_eq!(told("--lock=strict,namespaces,pid-namespace"), "");
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
    // Where the first root is the kernel's own and cannot be left, there is something below.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    println!("the root here: {}", mounts.lines().find(|line| line.contains(" / ")).unwrap_or_default());
}

#[test]
fn nobody_can_lock_in() {
    if let Some(reason) = not_root() {
        println!("SKIPPED nobody_can_lock_in: {reason}, to become nobody");
        return;
    }
    if !PathBuf::from("/proc/self/ns/user").exists() {
        println!("SKIPPED nobody_can_lock_in: no user namespaces");
        return;
    }
    for what in ["root", "rights", "strict"] {
        lock_attempts::succeeds(what, true);
    }
}
