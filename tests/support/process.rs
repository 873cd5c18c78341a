//! What this process holds: file descriptors, threads, memory, signal state.

use std::fs;
use std::path::PathBuf;

/// Every open file descriptor and what it refers to, sorted.
pub fn descriptors() -> Vec<(String, PathBuf)> {
    let mut all: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let target = fs::read_link(&path).ok()?;
            Some((path.file_name()?.to_str()?.to_owned(), target))
        })
        // The directory being read has a descriptor of its own.
        .filter(|(_, target)| !target.starts_with("/proc"))
        .collect();
    all.sort();
    all
}

/// The names of all threads, sorted.
pub fn threads() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect();
    names.sort();
    names
}

/// Resident memory in KiB.
pub fn resident_kib() -> usize {
    status("VmRSS").trim_end_matches(" kB").trim().parse().unwrap()
}

/// A line of the calling thread's status.
pub fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

/// A signal set of the calling thread's status: `SigBlk`, `SigIgn` or `SigCgt`.
pub fn signals(field: &str) -> u64 {
    u64::from_str_radix(&status(field), 16).unwrap()
}

/// Whether the host backs memory with huge pages though nobody asks for them: kernels are copied then, not mapped.
pub fn huge_pages_unasked() -> bool {
    let policy = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    policy.is_ok_and(|policy| policy.starts_with("[always]"))
}

/// What a machine must give back: file descriptors and threads.
///
/// Of the threads, those that belong to a machine by their names, and those without a name of their own, which have that
/// of the thread that started them. The others are the test harness's, which come and go.
#[derive(Debug, PartialEq)]
pub struct Held {
    descriptors: Vec<(String, PathBuf)>,
    threads: Vec<String>,
}

impl Held {
    /// What the process holds at this moment.
    pub fn now() -> Self {
        let own = status("Name");
        let threads = threads().into_iter().filter(|name| name.starts_with("fc-") || *name == own).collect();
        Self { descriptors: descriptors(), threads }
    }

    /// Asserts that the process is back to this.
    ///
    /// A thread that has been joined stays in `/proc` for a moment, which is long where the machine is busy: therefore the
    /// second looks.
    pub fn assert_back(&self, after: &str) {
        let mut now = Self::now();
        for _ in 0..5000 {
            if now == *self {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
            now = Self::now();
        }
        assert_eq!(now, *self, "after {after}, left, and before, right");
    }
}
