//! Monitors whose guest idles: started, looked at through `/proc`, and killed.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::monitor::{Guest, Monitor};
use crate::error::{Error, Result};
use crate::process;

/// An odd size, by which the guest's memory is found among the process's mappings.
pub const MEMORY_MIB: u32 = 97;

/// Longer than any monitor takes to its guest's first byte.
const LIMIT: Duration = Duration::from_secs(20);

/// From the guest's byte until the monitor has come to rest.
const SETTLE: Duration = Duration::from_millis(500);

/// A monitor whose guest has said its byte, killed when dropped.
pub struct Live(Child);

impl Drop for Live {
    fn drop(&mut self) {
        process::kill(&mut self.0);
    }
}

/// What a process has in memory besides its guest's, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    pub rss: f64,
    /// Pages that others map too, in equal parts.
    pub pss: f64,
    /// What goes with the process.
    pub private: f64,
    /// What of the guest's memory it has.
    pub guest: f64,
}

impl Live {
    /// Starts a monitor with the idle guest, and waits for the guest's byte. `namespace` is where its TAP is.
    pub fn start(
        monitor: &Monitor,
        guest: &Path,
        work: &Path,
        devices: &[String],
        namespace: Option<&str>,
    ) -> Result<Self> {
        let kernel = guest.to_string_lossy();
        let guest =
            Guest { kernel: &kernel, initrd: None, cmdline: "none", console: true, memory_mib: MEMORY_MIB };
        let words = monitor.words_here(&guest, work)?;
        let mut command = match namespace {
            // It becomes what it starts.
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&monitor.path);
                command
            }
            None => Command::new(&monitor.path),
        };
        command.args(words.iter().skip(1)).args(devices);
        // A pipe that stays open: not a terminal, and not the end of the input, to which a monitor may react.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut live = Self(process::spawn(&mut command)?);
        let output = live.0.stdout.take().ok_or_else(|| Error::new("a monitor's output is not a pipe"))?;
        if !says(output, b'!') {
            return Err(Error::new(format!("{}: the guest did not say its byte", monitor.name)));
        }
        thread::sleep(SETTLE);
        Ok(live)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What the process has in memory.
    pub fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/smaps", self.pid());
        let text = fs::read_to_string(&path).map_err(|error| Error::io("read", Path::new(&path), &error))?;
        memory(&text)
            .ok_or_else(|| Error::new(format!("{path}: no mapping, or not one alone, is the guest's")))
    }

    /// How often its threads have been switched away from: each is a wake-up by now.
    pub fn switches(&self) -> Result<f64> {
        let path = format!("/proc/{}/task", self.pid());
        let threads = fs::read_dir(&path).map_err(|error| Error::io("read", Path::new(&path), &error))?;
        let mut sum = 0.0;
        for thread in threads.flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
            sum += lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(sum)
    }
}

/// Whether `byte` comes out of a pipe in time; what follows it is read and dropped.
fn says(mut output: impl Read + Send + 'static, byte: u8) -> bool {
    let (said, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            if buffer[..length].contains(&byte) {
                // Whoever waited may have given up.
                let _ = said.send(());
            }
        }
    });
    heard.recv_timeout(LIMIT).is_ok()
}

/// Sums over the mappings of a `smaps`; `None` unless exactly one is as large as the guest's memory.
fn memory(smaps: &str) -> Option<Memory> {
    let (mut sums, mut guests, mut is_guest) = (Memory::default(), 0, false);
    let guest_kib = f64::from(MEMORY_MIB) * 1024.0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        let Ok(kib) = value.parse::<f64>() else { continue };
        match name {
            "Size:" => {
                is_guest = (guest_kib..guest_kib + 1024.0).contains(&kib);
                guests += i32::from(is_guest);
            }
            "Rss:" if is_guest => sums.guest += kib,
            "Rss:" => sums.rss += kib,
            "Pss:" if !is_guest => sums.pss += kib,
            "Private_Clean:" | "Private_Dirty:" if !is_guest => sums.private += kib,
            _ => {}
        }
    }
    (guests == 1).then_some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_memory_is_told_apart() {
        let text = "55-66 r-xp 0 00:00 1 /bin/x\nSize: 400 kB\nRss: 300 kB\nPss: 100 kB\nPrivate_Clean: 50 kB\n\
                    Private_Dirty: 8 kB\n77-88 rw-p 0 00:00 0\nSize: 99328 kB\nRss: 40 kB\nPss: 40 kB\n\
                    Private_Dirty: 40 kB\n";
        let sums = memory(text).unwrap();
        assert_eq!(sums, Memory { rss: 300.0, pss: 100.0, private: 58.0, guest: 40.0 });
        assert!(memory("55-66 r-xp 0 00:00 1 /bin/x\nSize: 400 kB\n").is_none());
    }

    #[test]
    fn a_byte_is_waited_for() {
        assert!(says(&b"log line\n!"[..], b'!'));
        assert!(!says(&b""[..], b'!'));
    }
}
