//! Every rule of a device's thread is needed: without it, a test of the device ends the process.
//!
//! The other tests of this crate show that the rules are enough: their devices' threads are jailed (see
//! `testing::Bench`). What every thread needs for itself, and not as a device, is shown in `seccomp/tests/needed.rs`.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use firecrest_seccomp::{Jail, Role};
use vmm_sys_util::tempdir::TempDir;

/// Names the role and the rule to leave out, in a process that is to end by that.
const WITHOUT: &str = "FIRECREST_TEST_WITHOUT";

/// What jails the devices' threads of this process.
pub(crate) fn jail() -> Jail {
    let jail = Jail::enforce();
    let Ok(without) = std::env::var(WITHOUT) else { return jail };
    let (role, rule) = without.split_once('/').unwrap();
    let role = Role::ALL.into_iter().find(|known| known.to_string() == role).unwrap();
    jail.without(role, rule.parse().unwrap())
}

/// What any thread needs.
const OF_ANY_THREAD: [&str; 7] = ["write", "futex", "mmap", "munmap", "exit", "getpid", "rt_sigreturn"];

/// A test that needs the call, by role; the first that fits counts.
const WORKLOADS: &[(Role, &str, &str)] = &[
    (Role::Block, "fdatasync", "block::tests::sync::write_through_writes"),
    (Role::Block, "fallocate", "block::tests::sync::discards_give_room_back"),
    (Role::Block, "", "block::tests::sync::data_goes_where_it_belongs"),
    // With a ring, the others are for what a ring does not do, or does in part.
    (Role::BlockUring, "preadv2", "block::uring::tests::a_ring_that_fails_is_given_up"),
    (Role::BlockUring, "pwritev2", "block::tests::io_uring::zeroes_are_written"),
    (Role::BlockUring, "fallocate", "block::tests::io_uring::discards_give_room_back"),
    (Role::BlockUring, "", "block::tests::io_uring::data_goes_where_it_belongs"),
    (Role::Net, "ioctl", "net::tap_tests::the_driver_says_how_many_pairs_it_uses"),
    (Role::Net, "", "net::tap_tests::frames_go_both_ways"),
    (
        Role::VsockStreams,
        "shutdown",
        "vsock::tests::streams::the_guest_closes_its_half_after_all_was_delivered",
    ),
    (Role::VsockStreams, "", "vsock::tests::streams::the_guest_connects_and_talks"),
    (Role::VsockBroker, "accept4", "vsock::tests::streams::the_host_connects_and_talks"),
    (Role::VsockBroker, "close", "vsock::tests::broker::lines_that_are_none_are_refused"),
    (Role::VsockBroker, "", "vsock::tests::streams::the_guest_connects_and_talks"),
];

fn workload(role: Role, call: &str) -> &'static str {
    let fits = |(of, name, _): &&(Role, &str, &str)| *of == role && (*name == call || name.is_empty());
    WORKLOADS.iter().find(fits).unwrap_or_else(|| panic!("{role}: {call} has no workload")).2
}

/// Where tests have their files: in memory, where the host has such a place, or where this process was told.
pub(crate) fn directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let is_told = std::env::var_os(WITHOUT).is_some();
    if memory.is_dir() && !is_told { memory.to_owned() } else { std::env::temp_dir() }
}

/// Runs a test of this crate in a process of its own.
fn run(test: &str, without: Option<String>) -> std::process::Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env_remove("RUST_BACKTRACE");
    // A process that is killed leaves its files behind.
    let left_behind = TempDir::new_in(&directory()).unwrap();
    if let Some(without) = without {
        command.env(WITHOUT, without).env("TMPDIR", left_behind.as_path());
    }
    command.output().unwrap()
}

#[test]
fn every_rule_of_a_device_is_needed() {
    let roles = [Role::Block, Role::BlockUring, Role::Net, Role::VsockStreams, Role::VsockBroker];
    for role in roles {
        let rules = role.rules().enumerate();
        for (place, rule) in rules.filter(|(_, rule)| !OF_ANY_THREAD.contains(&rule.call.name)) {
            let test = workload(role, rule.call.name);
            let name = format!("{role}: {} ({})", rule.call, rule.why);
            let with = run(test, None);
            let said = String::from_utf8_lossy(&with.stdout);
            assert!(with.status.success() && said.contains("1 passed"), "{name}: {test}: {said}");
            if said.contains("SKIPPED") {
                println!("SKIPPED {name}: {said}");
                continue;
            }
            let status = run(test, Some(format!("{role}/{place}"))).status;
            assert_eq!(status.signal(), Some(libc::SIGSYS), "{name} is not needed by {test}: {status}");
        }
    }
}
