//! The start benchmark: from exec to the end of a guest that ends with its first instructions.
//!
//! Measured is the whole process, from before it is spawned to after it is reaped: what a caller waits for. Where this
//! program's own part of it goes, its timeline says, in runs of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::monitor::{Guest, Kind, MEMORY_MIB, Monitor};
use super::record::{Record, Results};
use super::rounds::{self, Contender, Measured, WARM_UP};
use super::statistics::median;
use super::{Peer, monitor};
use crate::error::{Error, Result};
use crate::{cargo, process};

const NAME: &str = "exec to the end of a guest that ends at once";

/// Measures all contenders.
pub fn run(runs: usize, peers: &[Peer], results: &mut Results) -> Result<()> {
    println!("xtask: bench: building");
    let firecrest = cargo::release_program()?;
    let work = work_directory()?;
    let floor = compile(&work, "floor", &["-O2", "-static", "benches/start/floor.c"])?;
    let (guest, off) = (tiny_guest(&work)?, guest(&work, "off")?);
    let floor = vec![floor.to_string_lossy().into_owned()];
    let mut contenders = vec![Contender::new("ioctl floor", floor, 0).needed(true)];
    for monitor in monitor::all(&firecrest, peers) {
        let guest = if monitor.kind == Kind::CloudHypervisor { &off } else { &guest };
        contenders.push(contender_for(&monitor, guest, &work)?);
        if monitor.is_ours() {
            // What the filters cost: the same without.
            let mut open =
                contender_for(&Monitor { name: "firecrest --jail off".into(), ..monitor }, guest, &work)?;
            open.words.extend(["--jail", "off"].map(str::to_owned));
            contenders.push(open);
        }
    }
    let conditions = format!("whole process, {MEMORY_MIB} MiB, 1 vCPU, benches/start/tiny.S");
    rounds::run(
        &mut contenders,
        runs,
        &Measured { group: "start", name: NAME, conditions: &conditions },
        results,
    )?;
    phases(&firecrest, &guest, runs, &conditions, results)
}

/// The guest that ends with its first instructions.
pub fn tiny_guest(work: &Path) -> Result<PathBuf> {
    guest(work, "tiny")
}

/// The guest that says a byte and halts for ever.
pub fn idle_guest(work: &Path) -> Result<PathBuf> {
    guest(work, "idle")
}

fn guest(work: &Path, name: &str) -> Result<PathBuf> {
    let (linked, source) =
        ("-Wl,--build-id=none,-T,benches/start/tiny.ld", format!("benches/start/{name}.S"));
    compile(work, &format!("{name}.elf"), &["-nostdlib", "-static", "-no-pie", linked, &source])
}

/// Where the programs of these benchmarks are put.
pub fn work_directory() -> Result<PathBuf> {
    let work = cargo::target_directory().join("bench-start");
    fs::create_dir_all(&work).map_err(|error| Error::io("create", &work, &error))?;
    Ok(work)
}

/// Compiles a C or assembly source of this repository.
pub fn compile(work: &Path, name: &str, args: &[&str]) -> Result<PathBuf> {
    let output = work.join(name);
    let mut command = Command::new("cc");
    command.current_dir(cargo::workspace()).args(args).arg("-o").arg(&output);
    process::run(&mut command)?;
    Ok(output)
}

fn contender_for(monitor: &Monitor, guest: &Path, work: &Path) -> Result<Contender> {
    let kernel = guest.to_string_lossy();
    let guest =
        Guest { kernel: &kernel, initrd: None, cmdline: "none", console: false, memory_mib: MEMORY_MIB };
    let mut words = monitor.words_here(&guest, work)?;
    if monitor.kind == Kind::Qemu {
        // What the guest writes to this port, doubled, and one, is QEMU's exit code: of 0xfe, in a byte, that is this.
        let exit = ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"].map(str::to_owned);
        words.extend(exit);
        return Ok(Contender::new(&monitor.name, words, 0xfd));
    }
    Ok(Contender::new(&monitor.name, words, monitor.code_of_reset()).needed(monitor.is_ours()))
}

/// Where a start of this program goes, by its own timeline, in as many runs.
fn phases(
    firecrest: &Path,
    guest: &Path,
    runs: usize,
    conditions: &str,
    results: &mut Results,
) -> Result<()> {
    let mut series: Vec<(String, Vec<f64>)> = Vec::new();
    for run in 0..runs + WARM_UP {
        let mut command = Command::new(firecrest);
        command.args(["run", "--timeline", "--kernel"]).arg(guest).stdin(Stdio::null());
        let from = SystemTime::now();
        let output = command
            .output()
            .map_err(|error| Error::new(format!("cannot start {}: {error}", firecrest.display())))?;
        let from = from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as f64;
        let marks = marks(&String::from_utf8_lossy(&output.stderr), from);
        if marks.is_empty() {
            return Err(Error::new("firecrest run --timeline has not told a timeline"));
        }
        for (place, (phase, since)) in marks.into_iter().enumerate().filter(|_| run >= WARM_UP) {
            match series.get_mut(place) {
                Some((known, times)) if *known == phase => times.push(since / 1e6),
                None => series.push((phase, vec![since / 1e6])),
                Some((known, _)) => {
                    return Err(Error::new(format!(
                        "a timeline has `{phase}` where one before had `{known}`"
                    )));
                }
            }
        }
    }
    if let Some((_, times)) = series.iter().find(|(phase, _)| phase == "entering") {
        let name = "exec to the first guest instruction";
        results.push(Record::of("start", name, "firecrest", "ms", times).conditions(conditions));
    }
    let mut before = vec![0.0; runs];
    for (phase, times) in series {
        let each: Vec<_> = times.iter().zip(&before).map(|(until, from)| until - from).collect();
        let record = Record::of("start", "phases of the start", "firecrest", "ms", &each);
        results.push(record.phase(&phase).conditions(conditions));
        before = times;
    }
    let whole = median(&before);
    println!("xtask: bench: first exit {whole:.2} ms after exec, by the timeline");
    Ok(())
}

/// What a timeline says, counted from `from` (nanoseconds since the epoch) on: `exec to main` first.
fn marks(stderr: &str, from: f64) -> Vec<(String, f64)> {
    let lines =
        stderr.lines().filter_map(|line| line.strip_prefix("firecrest: timeline: ")?.split_once(" ns "));
    let mut values = lines.filter_map(|(value, phase)| Some((phase, value.parse::<f64>().ok()?)));
    let Some(("began", began)) = values.next() else { return Vec::new() };
    let began = began - from;
    let rest = values.map(|(phase, since)| (phase.to_owned(), began + since));
    [("exec to main".to_owned(), began)].into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_read() {
        let text =
            "firecrest: timeline: 5000 ns began\nfirecrest: timeline: 20 ns planned\nfirecrest: reset\n";
        assert_eq!(
            marks(text, 4000.0),
            [("exec to main".to_owned(), 1000.0), ("planned".to_owned(), 1020.0)]
        );
        assert!(marks("firecrest: reset\n", 0.0).is_empty());
    }
}
