//! A cgroup of version 2: a directory that somebody has made for the process.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::error::LockError;
use super::sys::{c_path, check};

#[cfg(target_env = "musl")]
type Kind = libc::c_ulong;
#[cfg(not(target_env = "musl"))]
type Kind = libc::__fsword_t;

/// `CGROUP2_SUPER_MAGIC`.
const MAGIC: Kind = 0x6367_7270;
/// Microseconds after which a quota of CPU time begins anew: the kernel's own default.
const PERIOD: u64 = 100_000;
/// More than any host has.
const MOST_PERCENT: u64 = 100 * 65_536;

/// A cgroup to be in, and its limits. The directory exists already, belongs to this process alone, and stays when it
/// ends: it cannot be removed from inside.
#[derive(Clone, Debug)]
#[must_use]
pub struct Cgroup {
    directory: PathBuf,
    memory_mib: Option<u64>,
    cpu_percent: Option<u64>,
    pids: Option<u64>,
}

impl Cgroup {
    /// The cgroup of this directory.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), memory_mib: None, cpu_percent: None, pids: None }
    }

    /// Memory at most, in MiB: the guest's, and what the monitor has besides. Beyond it, the process is killed.
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.memory_mib = Some(mib);
        self
    }

    /// CPU time at most, in percent of one CPU: 150 is one and a half.
    pub fn cpu_percent(mut self, percent: u64) -> Self {
        self.cpu_percent = Some(percent);
        self
    }

    /// Threads and processes at most.
    pub fn pids(mut self, most: u64) -> Self {
        self.pids = Some(most);
        self
    }

    /// Sets the limits, and moves the process there.
    pub(super) fn join(&self) -> Result<(), LockError> {
        self.check_directory()?;
        for (file, value) in self.values()? {
            self.write(file, value).map_err(|error| match error {
                LockError::Cgroup { source, .. } if source.kind() == ErrorKind::NotFound => {
                    LockError::Controller { path: self.directory.clone(), file }
                }
                error => error,
            })?;
        }
        self.write("cgroup.procs", "0".to_owned())
    }

    fn values(&self) -> Result<Vec<(&'static str, String)>, LockError> {
        let limit = |what, value: Option<u64>, most: u64| match value {
            Some(value) if value == 0 || value > most => Err(LockError::CgroupLimit { what, value }),
            value => Ok(value),
        };
        let memory = limit("memory in MiB", self.memory_mib, 1 << 40)?;
        let percent = limit("CPU time in percent", self.cpu_percent, MOST_PERCENT)?;
        let pids = limit("number of threads", self.pids, 1 << 22)?;
        let memory = memory.map(|mib| ("memory.max", mib.saturating_mul(1 << 20).to_string()));
        let quota = percent.map(|percent| percent.saturating_mul(PERIOD) / 100);
        let cpu = quota.map(|quota| ("cpu.max", format!("{quota} {PERIOD}")));
        let pids = pids.map(|most| ("pids.max", most.to_string()));
        Ok([memory, cpu, pids].into_iter().flatten().collect())
    }

    fn check_directory(&self) -> Result<(), LockError> {
        let kind = file_system(&self.directory).map_err(|source| LockError::Cgroup {
            path: self.directory.join("cgroup.procs"),
            value: "0".to_owned(),
            source,
        })?;
        if kind == MAGIC && self.directory.is_dir() {
            return Ok(());
        }
        Err(LockError::NotCgroup { path: self.directory.clone() })
    }

    fn write(&self, file: &str, value: String) -> Result<(), LockError> {
        let path = self.directory.join(file);
        let opened = OpenOptions::new().write(true).open(&path);
        let written = opened.and_then(|mut opened| opened.write_all(value.as_bytes()));
        written.map_err(|source| LockError::Cgroup { path, value, source })
    }
}

/// The number of the kind of file system that a path is on.
fn file_system(path: &Path) -> io::Result<Kind> {
    let path = c_path(path)?;
    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: a string that ends, and room for the answer, for which zero is valid, too.
    let found = unsafe {
        check(libc::statfs(path.as_ptr(), found.as_mut_ptr()))?;
        found.assume_init()
    };
    Ok(found.f_type)
}
