//! The I/O benchmark: one guest that drives virtio-mmio devices by polling (`benches/guest`), on this program and on
//! peers, at the speed of the machine.
//!
//! Two things are told apart: what a clock says (rates, round trips, CPU time of the monitor's device threads), which
//! another machine or a busy one changes, and what is counted (kicks, exits to user space), which is the same everywhere.
//! Every figure is cross-checked from the other side: the guest looks at what it reads, the host counts the frames
//! and bytes that arrive and looks at what was written to the disk.

mod counts;
mod host;
mod monitor;
mod report;
mod table;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use self::counts::Counts;
use self::host::Host;
use self::monitor::Monitor;
use self::report::Report;
use self::workloads::{WORKLOADS, Workload};
use super::Peer;
use crate::error::{Error, Result};
use crate::{cargo, process};

/// Longer than any run takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// What the command line says.
pub struct Options {
    pub rounds: usize,
    /// Of each measurement.
    pub milliseconds: u64,
    /// Only workloads whose name contains this.
    pub only: Option<String>,
}

/// One monitor on one workload.
struct Contender<'a> {
    monitor: &'a Monitor,
    reports: Vec<Report>,
    counts: Option<Counts>,
    failure: Option<String>,
}

/// Measures all workloads and prints a table.
pub fn run(options: &Options, peers: &[Peer]) -> Result<()> {
    let wanted = |workload: &&Workload| options.only.as_ref().is_none_or(|only| workload.name.contains(only));
    let workloads: Vec<_> = WORKLOADS.iter().filter(wanted).collect();
    if workloads.is_empty() {
        return Err(Error::usage("no workload has such a name"));
    }
    println!("xtask: bench: building");
    let firecrest = cargo::release_program()?;
    let guest = guest()?;
    let monitors = monitor::all(&firecrest, peers)?;
    let host = Host::prepare()?;
    let uncounted = counts::unavailable(&host.file("perf"));
    if let Some(reason) = &uncounted {
        println!("SKIPPED exits and system calls of an operation: perf (Debian's linux-perf): {reason}");
    }
    println!("xtask: bench: {} rounds of {} workloads", options.rounds, workloads.len());
    print!("{}", table::head());
    for workload in workloads {
        if let Some(reason) = host.lacks(workload.device) {
            println!("SKIPPED {}: {reason}", workload.name);
            continue;
        }
        let run = Run { workload, guest: &guest, host: &host };
        let fitting = monitors.iter().filter(|monitor| monitor.has(workload.device));
        let mut contenders: Vec<_> = fitting
            .map(|monitor| Contender { monitor, reports: Vec::new(), counts: None, failure: None })
            .collect();
        for _ in 0..options.rounds {
            for contender in contenders.iter_mut().filter(|contender| contender.failure.is_none()) {
                match run.timed(contender.monitor, options.milliseconds) {
                    Ok(report) => contender.reports.push(report),
                    Err(error) => contender.failure = Some(error.to_string()),
                }
            }
        }
        let ran = contenders.iter_mut().filter(|contender| contender.failure.is_none());
        for contender in ran.filter(|_| uncounted.is_none()) {
            match run.counted(contender.monitor, options.milliseconds) {
                Ok(counts) => contender.counts = counts,
                Err(error) => contender.failure = Some(error.to_string()),
            }
        }
        print!("{}", table::section(workload, &contenders));
    }
    Ok(())
}

/// The guest, built by its own configuration.
fn guest() -> Result<PathBuf> {
    let directory = cargo::workspace().join("benches/guest");
    let target = cargo::workspace().join("target/bench-guest");
    let mut command = cargo::cargo();
    command.current_dir(&directory).args(["build", "--release", "--quiet", "--target-dir"]).arg(&target);
    process::run(command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
    Ok(target.join("x86_64-unknown-linux-gnu/release/bench-guest"))
}

/// What all runs of a workload share.
struct Run<'a> {
    workload: &'a Workload,
    guest: &'a Path,
    host: &'a Host,
}

impl Run<'_> {
    /// A monitor started, its guest listened to, the result compared with what the host saw.
    fn timed(&self, monitor: &Monitor, milliseconds: u64) -> Result<Report> {
        let mut command = self.command(monitor, &format!("ms={milliseconds}"))?;
        self.listen(&mut command, monitor)
    }

    /// What one operation costs.
    fn counted(&self, monitor: &Monitor, milliseconds: u64) -> Result<Option<Counts>> {
        let file = self.host.file("perf");
        let count = |milliseconds| {
            let command = self.command(monitor, &format!("ms={milliseconds} warm=1"))?;
            let report = self.listen(&mut counts::under_perf(&command, &file), monitor)?;
            Ok::<_, Error>((counts::read(&file)?, report.all_operations))
        };
        // What the console's output takes varies by some hundred calls: the longer, the less of that is seen.
        Ok(Counts::of_one(count(1)?, count(milliseconds.saturating_mul(4))?))
    }

    fn command(&self, monitor: &Monitor, duration: &str) -> Result<Command> {
        let cmdline = format!("{} {duration}", self.workload.cmdline);
        monitor.command(self.workload, self.guest, &cmdline, self.host)
    }

    fn listen(&self, command: &mut Command, monitor: &Monitor) -> Result<Report> {
        let before = self.host.before(self.workload)?;
        let report = report::listen(command, monitor.code(), LIMIT)?;
        self.host.check(self.workload, &before, &report)?;
        Ok(report)
    }
}
