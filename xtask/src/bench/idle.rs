//! The idle benchmark: what a monitor does while its guest does nothing. It should be nothing.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::io::host::Host;
use super::live::{Live, MEMORY_MIB};
use super::monitor::{self, Kind};
use super::record::{Record, Results};
use super::{Peer, memory, start};
use crate::error::{Error, Result};
use crate::{cargo, process};

/// How long a monitor is watched.
const WATCH: Duration = Duration::from_secs(10);
/// From the guest's byte until everything has come to rest.
const SETTLE: Duration = Duration::from_secs(1);

const CALL: &str = "raw_syscalls:sys_enter";

pub fn run(peers: &[Peer], results: &mut Results) -> Result<()> {
    println!("xtask: bench: building");
    let firecrest = cargo::release_program()?;
    let work = start::work_directory()?;
    let guest = start::idle_guest(&work)?;
    let counts_calls = match counts_calls(&work) {
        None => true,
        Some(error) => {
            results.remark(format!("SKIPPED idle: system calls: perf (Debian's linux-perf): {error}"));
            false
        }
    };
    for monitor in monitor::all(&firecrest, peers) {
        watch(&monitor.name, "no devices", &work, counts_calls, results, || {
            Live::start(&monitor, &guest, &work, &[], None)
        })
        .or_else(|error| {
            if monitor.is_ours() {
                return Err(error);
            }
            results.remark(format!("idle: {}: {error}", monitor.name));
            Ok(())
        })?;
        if monitor.kind == Kind::Firecrest {
            let host = Host::prepare()?;
            if let Some(reason) = host.lacks_tap() {
                results.remark(format!("SKIPPED idle: three devices: {reason}"));
                continue;
            }
            let devices = memory::devices(&host);
            watch(&monitor.name, "a disk, a network card and a vsock", &work, counts_calls, results, || {
                Live::start(&monitor, &guest, &work, &devices, host.tap_namespace())
            })?;
        }
    }
    Ok(())
}

fn watch(
    name: &str,
    devices: &str,
    work: &Path,
    counts_calls: bool,
    results: &mut Results,
    start: impl FnOnce() -> Result<Live>,
) -> Result<()> {
    let live = start()?;
    thread::sleep(SETTLE);
    let (from, before) = (Instant::now(), live.switches()?);
    let calls = if counts_calls {
        Some(calls(live.pid(), work, WATCH)?)
    } else {
        thread::sleep(WATCH);
        None
    };
    let (seconds, switches) = (from.elapsed().as_secs_f64(), live.switches()? - before);
    let conditions =
        format!("halted guest of a few instructions, {MEMORY_MIB} MiB, serial console, {devices}");
    let wake_ups = Record::of("idle", "wake-ups of all threads", name, "1/s", &[switches / seconds]);
    results.push(wake_ups.conditions(&conditions));
    if let Some(calls) = calls {
        let record = Record::of("idle", "system calls of all threads", name, "1/s", &[calls / seconds]);
        results.push(record.conditions(&conditions));
    }
    Ok(())
}

/// Why perf does not count system calls here, if so; it is asked to count those of a program that makes some.
fn counts_calls(work: &Path) -> Option<String> {
    let file = work.join("idle-perf");
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x,", "-e", CALL, "-o"]).arg(&file).args(["--", "true"]);
    match process::output(&mut perf).and_then(|_| read(&file)) {
        Ok(Some(count)) if count > 0.0 => None,
        Ok(_) => Some("it has counted none of a program that makes some".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// System calls a process enters within some time, by perf's count.
fn calls(pid: u32, work: &Path, time: Duration) -> Result<f64> {
    let file = work.join("idle-perf");
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x,", "-e", CALL, "-p", &pid.to_string(), "-o"]).arg(&file);
    perf.args(["--", "sleep", &time.as_secs_f64().to_string()]);
    process::output(&mut perf)?;
    // Perf counts nothing where no thread of the process ran at all, and says so.
    Ok(read(&file)?.unwrap_or(0.0))
}

/// The count in perf's file; `None` where it says `<not counted>`.
fn read(file: &Path) -> Result<Option<f64>> {
    let text = std::fs::read_to_string(file).map_err(|error| Error::io("read", file, &error))?;
    let line = text.lines().find(|line| line.contains(CALL));
    match line.and_then(|line| line.split(',').next()) {
        Some("<not counted>") => Ok(None),
        Some(count) => {
            count.parse().map(Some).map_err(|_| Error::new(format!("perf says {count} of {CALL}")))
        }
        None => Err(Error::new(format!("perf says nothing of {CALL}"))),
    }
}
