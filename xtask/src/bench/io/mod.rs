//! The I/O benchmark: one guest that drives virtio-mmio devices by polling (`benches/guest`), on this program and on
//! peers, at the speed of the machine.
//!
//! Two things are told apart: what a clock says (rates, round trips, CPU time of the monitor's device threads), which
//! another machine or a busy one changes, and what is counted (kicks, exits to user space), which is the same everywhere.
//! Every figure is cross-checked from the other side: the guest looks at what it reads, the host counts the frames
//! and bytes that arrive and looks at what was written to the disk.

mod counts;
pub mod host;
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
use super::record::{Record, Results};
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

/// Measures all workloads and prints a table as they come, since they take a while.
pub fn run(options: &Options, peers: &[Peer], results: &mut Results) -> Result<()> {
    let wanted = |workload: &&Workload| options.only.as_ref().is_none_or(|only| workload.name.contains(only));
    let workloads: Vec<_> = WORKLOADS.iter().filter(wanted).collect();
    if workloads.is_empty() {
        return Err(Error::usage("no workload has such a name"));
    }
    println!("xtask: bench: building");
    let firecrest = cargo::release_program()?;
    let guest = guest()?;
    let monitors = monitor::all(&firecrest, peers, results);
    let host = Host::prepare()?;
    let uncounted = counts::unavailable(&host.file("perf"));
    if let Some(reason) = &uncounted {
        results.remark(format!(
            "SKIPPED io: exits and system calls of an operation: perf (Debian's linux-perf): {reason}"
        ));
    }
    println!("xtask: bench: {} rounds of {} workloads", options.rounds, workloads.len());
    print!("{}", table::head());
    for workload in workloads {
        if let Some(reason) = host.lacks(workload.device) {
            results.remark(format!("SKIPPED io: {}: {reason}", workload.name));
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
        contenders.iter().for_each(|contender| keep(workload, contender, options.milliseconds, results));
    }
    Ok(())
}

/// What is in the table, as records.
fn keep(workload: &Workload, contender: &Contender, milliseconds: u64, results: &mut Results) {
    let name = contender.monitor.name(workload.device);
    if let Some(failure) = &contender.failure {
        return results.remarks.push(format!("io: {}: {name} failed: {failure}", workload.name));
    }
    let conditions = format!("{milliseconds} ms, benches/guest");
    let mut push = |what: &str, unit: &str, series: &[f64]| {
        if !series.is_empty() {
            let title = format!("{}{what}", workload.name);
            results.push(Record::of("io", &title, &name, unit, series).conditions(&conditions));
        }
    };
    let each =
        |what: &dyn Fn(&Report) -> Option<f64>| contender.reports.iter().filter_map(what).collect::<Vec<_>>();
    push("", workload.unit.name(), &each(&|report| Some(workload.unit.of(report))));
    let device = each(&|report| Some(report.device_nanoseconds? / 1e3 / report.operations));
    push(": device threads' CPU time of one", "us", &device);
    if let Some(counts) = contender.counts {
        push(": exits of one", "exits", &[counts.register_exits]);
        push(": system calls of one", "calls", &[counts.calls]);
    }
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
