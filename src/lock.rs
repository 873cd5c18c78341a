//! `--lock`: what the program gives up before the guest starts.

use std::error::Error;
use std::path::{Path, PathBuf};

use firecrest_vmm::lock::{Begun, Cgroup, Lock};

use crate::terminal;
use crate::words::Words;

/// Descriptors that a disk may open once it works: rings, with an eventfd each.
const PER_DISK: u64 = 64;
/// Those of a socket device: its connections, and clients that have not said yet where to.
const PER_VSOCK: u64 = 1023 + 1024 + 64;
/// What else may be opened: the signals' and the terminal's threads.
const MORE: u64 = 64;

// Most runs have no lock: what is `#[cold]` here and in the library lies together in the program's file, away from what
// every run brings into memory.

/// What `--lock` says.
#[derive(Debug, Default)]
pub struct Wanted {
    strict: bool,
    namespaces: bool,
    pid_namespace: bool,
    uid: Option<u32>,
    gid: Option<u32>,
    cgroup: Option<PathBuf>,
    memory: Option<u64>,
    cpu: Option<u64>,
    pids: Option<u64>,
}

impl Wanted {
    /// Reads the option's words; none at all are a lock as well.
    #[cold]
    pub fn read(text: &str) -> Result<Self, lexopt::Error> {
        let words = Words { option: "lock", text };
        let mut wanted = Self::default();
        for (key, value) in words.each().filter(|_| !text.is_empty()) {
            match key {
                "strict" => wanted.strict = true,
                "namespaces" => wanted.namespaces = true,
                "pid-namespace" => wanted.pid_namespace = true,
                "uid" => wanted.uid = Some(words.number(key, value)?),
                "gid" => wanted.gid = Some(words.number(key, value)?),
                "cgroup" => wanted.cgroup = Some(words.value(key, value)?.into()),
                "memory" => wanted.memory = Some(words.number(key, value)?),
                "cpu" => wanted.cpu = Some(words.number(key, value)?),
                "pids" => wanted.pids = Some(words.number(key, value)?),
                _ => return Err(words.unknown(key)),
            }
        }
        if wanted.uid.is_some() != wanted.gid.is_some() {
            return Err(words.error("give both uid=N and gid=N"));
        }
        let limited = wanted.memory.or(wanted.cpu).or(wanted.pids).is_some();
        if limited && wanted.cgroup.is_none() {
            return Err(words.error("memory, cpu and pids need cgroup=DIR"));
        }
        Ok(wanted)
    }

    /// Begins to lock a program that has opened nothing yet, for a machine with so many disks and with these sockets.
    #[cold]
    pub fn begin(self, disks: u64, sockets: &[PathBuf]) -> Result<Begun, Box<dyn Error>> {
        let vsocks = u64::try_from(sockets.len())?;
        let descriptors = MORE
            .saturating_add(disks.saturating_mul(PER_DISK))
            .saturating_add(vsocks.saturating_mul(PER_VSOCK));
        let mut lock = sockets.iter().fold(Lock::new().descriptors(descriptors), Lock::keep_socket);
        if self.strict {
            lock = lock.strict();
        }
        if self.namespaces {
            lock = lock.namespaces();
        }
        if self.pid_namespace {
            // In there nothing stops the program that has not got its terminal yet: it would ask for it on and on.
            terminal::come_to_the_foreground();
            lock = lock.pid_namespace();
        }
        if let (Some(uid), Some(gid)) = (self.uid, self.gid) {
            lock = lock.user(uid, gid);
        }
        if let Some(cgroup) = self.cgroup.as_deref() {
            lock = lock.cgroup(self.limits(cgroup));
        }
        // SAFETY: the program has read its arguments and opened nothing.
        Ok(unsafe { lock.close_inherited() }?.begin()?)
    }

    fn limits(&self, directory: &Path) -> Cgroup {
        let mut cgroup = Cgroup::at(directory);
        if let Some(mib) = self.memory {
            cgroup = cgroup.memory_mib(mib);
        }
        if let Some(percent) = self.cpu {
            cgroup = cgroup.cpu_percent(percent);
        }
        if let Some(most) = self.pids {
            cgroup = cgroup.pids(most);
        }
        cgroup
    }
}

/// Puts the lock on, and says what it leaves open.
#[cold]
pub fn apply(begun: Begun) -> Result<(), Box<dyn Error>> {
    for missing in begun.apply()?.missing() {
        eprintln!("firecrest: --lock: {missing}");
    }
    Ok(())
}
