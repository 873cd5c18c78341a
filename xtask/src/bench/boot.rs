//! The boot benchmark: what it takes from exec of a monitor to PID 1 of its guest, counted.
//!
//! It runs in the lab with its deterministic clock: one virtual nanosecond for each instruction that the guest, the
//! monitor and KVM execute, whatever machine this is. The moments are KVM's own trace events (`benches/boot/measure.sh`),
//! so all monitors are measured alike: the first entry into the guest, and a CPUID leaf that only PID 1 asks for.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::monitor::{self, Guest, Kind, MEMORY_MIB, Monitor};
use super::record::{Record, Results};
use super::{Peer, wall};
use crate::cache::Scratch;
use crate::error::{Error, Result};
use crate::lab::{Lab, words};
use crate::{boot_image, cargo, kernel, process};

/// Longer than the lab takes for all boots of all monitors.
const LIMIT: Duration = Duration::from_secs(1200);

/// What QEMU reads of its own, besides the kernel.
const QEMU_FILES: [&str; 6] = [
    "/usr/share/seabios/bios-microvm.bin",
    "/usr/share/qemu/qboot.rom",
    "/usr/share/qemu/pvh.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/linuxboot.bin",
    "/usr/share/qemu/kvmvapic.bin",
];

/// A way to boot.
struct Mode {
    name: &'static str,
    cmdline: &'static str,
    console: bool,
    /// Peers have no such port, or cannot ask for huge pages so.
    ours_alone: bool,
    /// The monitor is told to ask for huge pages.
    asks: bool,
    /// Whom the host gives transparent huge pages: `always` is Debian's policy, `madvise` many others'.
    huge_pages: &'static str,
}

const QUIET: Mode = Mode {
    name: "quiet",
    cmdline: boot_image::QUIET,
    console: false,
    ours_alone: false,
    asks: false,
    huge_pages: "always",
};

/// No serial port, and one that shows the whole log: at the ports that all monitors have, and in memory. The guest resets
/// itself by a triple fault, which all of them know.
const MODES: [Mode; 5] = [
    QUIET,
    Mode { name: "quiet, huge pages for who asks", huge_pages: "madvise", ..QUIET },
    Mode {
        name: "quiet, huge pages asked for",
        huge_pages: "madvise",
        asks: true,
        ours_alone: true,
        ..QUIET
    },
    Mode { name: "serial console", cmdline: "console=ttyS0 reboot=t panic=-1", console: true, ..QUIET },
    Mode {
        name: "serial console in memory",
        cmdline: "console=ttyS4 reboot=t panic=-1",
        console: true,
        ours_alone: true,
        ..QUIET
    },
];

/// One monitor booting in one mode, and what was seen: by name, one value for each boot.
struct Case<'a> {
    monitor: &'a Monitor,
    mode: &'a Mode,
    seen: BTreeMap<String, Vec<f64>>,
    phases: Vec<(String, f64)>,
    errors: Vec<String>,
}

/// Boots all monitors in one lab.
pub fn run(runs: usize, peers: &[Peer], results: &mut Results) -> Result<()> {
    println!("xtask: bench: building");
    let firecrest = cargo::release_program()?;
    let (kernel, initrd) = (kernel::ensure()?.vmlinux, boot_image::ensure()?);
    let monitors = monitor::all(&firecrest, peers);
    wall::run(runs, &monitors, &kernel, &initrd, results)?;
    let scratch = Scratch::new("bench-boot")?;
    let script = scratch.path().join("boot.sh");
    let mut lab = Lab::new(&script);
    (lab.icount, lab.xsave, lab.timeout) = (true, true, LIMIT);
    let (kernel, initrd) = (lab.bring(&kernel), lab.bring(&initrd));
    lab.bring(&cargo::workspace().join(boot_image::MEASURE));
    let monitors = bring(&mut lab, &monitors, results);

    let mut cases: Vec<_> = monitors
        .iter()
        .flat_map(|monitor| MODES.iter().map(move |mode| (monitor, mode)))
        .filter(|(monitor, mode)| monitor.kind == Kind::Firecrest || !mode.ours_alone)
        .map(|(monitor, mode)| Case {
            monitor,
            mode,
            seen: BTreeMap::new(),
            phases: Vec::new(),
            errors: Vec::new(),
        })
        .collect();
    let mut text = "#!/bin/sh\n".to_owned();
    for (number, case) in cases.iter().enumerate() {
        text += &boots(number, case, runs, &kernel, &initrd);
    }
    process::write_script(&script, &text)?;
    println!("xtask: bench: {} boots in the lab", cases.len() * (runs + 1));
    let (mut current, mut lines) = (None, Vec::new());
    let code = lab.run_lines(|line| match line.split_once("boot: case ") {
        Some((_, number)) => current = number.trim().parse::<usize>().ok(),
        None => {
            if let Some(case) = current.and_then(|number| cases.get_mut(number)) {
                case.take_in(line);
            }
            lines.push(line.to_owned());
        }
    })?;
    if code != 0 {
        let last = lines.iter().rev().take(5).rev().cloned().collect::<Vec<_>>().join("\n");
        return Err(Error::new(format!("the boots ended with exit code {code}; the last lines:\n{last}")));
    }
    cases.iter().try_for_each(|case| case.keep(results))
}

/// Copies the monitors into the lab; what is left are those that are there.
fn bring(lab: &mut Lab, monitors: &[Monitor], results: &mut Results) -> Vec<Monitor> {
    let mut there = Vec::new();
    for (number, monitor) in monitors.iter().enumerate() {
        let source = match monitor.kind {
            Kind::Qemu => Path::new("/usr/bin").join(monitor::QEMU),
            _ => Path::new(&monitor.path).to_owned(),
        };
        if !source.is_file() {
            results.remark(format!("SKIPPED boot: {}: no file {}", monitor.name, source.display()));
            continue;
        }
        let path = format!("/lab/monitor-{number}");
        lab.files.push((source, path.clone()));
        if monitor.kind == Kind::Qemu {
            for file in QEMU_FILES.iter().map(Path::new).filter(|file| file.is_file()) {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                lab.files.push((file.to_owned(), format!("/lab/qemu/{name}")));
            }
        }
        there.push(Monitor { path, ..monitor.clone() });
    }
    there
}

/// The script's lines for one case.
fn boots(number: usize, case: &Case, runs: usize, kernel: &str, initrd: &str) -> String {
    let mut cmdline = case.mode.cmdline.to_owned();
    if case.monitor.kind == Kind::CloudHypervisor {
        cmdline += boot_image::POWER_OFF;
    }
    let guest = Guest {
        kernel,
        initrd: Some(initrd),
        cmdline: &cmdline,
        console: case.mode.console,
        memory_mib: MEMORY_MIB,
    };
    let config = format!("/tmp/config-{number}");
    let mut told = case.monitor.words(&guest, &config);
    match case.monitor.kind {
        Kind::Firecrest if case.monitor.is_ours() => told.words.push("--timeline".into()),
        Kind::Qemu => told.words.extend(["-L".into(), "/lab/qemu".into()]),
        _ => {}
    }
    if case.mode.asks {
        told.words.push("--huge-pages".into());
    }
    let mut text = format!(
        "echo 'boot: case {number}'\necho {} >/sys/kernel/mm/transparent_hugepage/enabled\n",
        case.mode.huge_pages
    );
    if let Some(config) = told.config {
        text += &format!("cat >/tmp/config-{number} <<'END'\n{config}\nEND\n");
    }
    let command = words(&told.words);
    text += &format!("sh /lab/measure.sh time {command}\n").repeat(runs);
    // Last: the first boot in a lab finds nothing of the monitor's in the page cache's tables.
    text + &format!("sh /lab/measure.sh count {command}\n")
}

impl Case<'_> {
    fn take_in(&mut self, line: &str) {
        if let Some((since, phase)) =
            line.split_once("firecrest: timeline: ").and_then(|(_, rest)| rest.split_once(" ns "))
        {
            if let Ok(since) = since.parse() {
                self.phases.push((phase.trim().to_owned(), since));
            }
            return;
        }
        let Some((_, said)) = line.split_once("boot: ") else { return };
        match said.split_once(' ') {
            Some(("error", error)) => self.errors.push(error.to_owned()),
            Some((name, value)) => {
                if let Ok(value) = value.trim().parse() {
                    self.seen.entry(name.to_owned()).or_default().push(value);
                }
            }
            None => {}
        }
    }

    fn keep(&self, results: &mut Results) -> Result<()> {
        let (name, mode) = (&self.monitor.name, self.mode.name);
        if let Some(error) = self.errors.first() {
            let text = format!("boot: {name}, {mode}: {error}");
            if self.monitor.is_ours() {
                return Err(Error::new(text));
            }
            results.remark(text);
            return Ok(());
        }
        let conditions = format!(
            "{mode}, {MEMORY_MIB} MiB, 1 vCPU, resources/kernel-config, 1 MiB of plain initramfs; lab clock; `{}`",
            self.mode.cmdline
        );
        let mut push = |what: &str, unit: &str, of: &str| {
            if let Some(series) = self.seen.get(of) {
                results.push(Record::of("boot", what, name, unit, series).conditions(&conditions));
            }
        };
        push("exec to the first guest instruction", "instructions", "entry");
        push("exec to PID 1", "instructions", "init");
        push("exits to user space to PID 1", "exits", "user-exits");
        push("all exits to PID 1", "exits", "exits");
        if self.mode.console {
            push("output of the whole run", "bytes", "output");
        }
        self.timeline(&conditions, results);
        Ok(())
    }

    /// The whole in its parts: this program's own timeline where there is one, before what KVM has seen.
    fn timeline(&self, conditions: &str, results: &mut Results) {
        let last = |of: &str| self.seen.get(of).and_then(|series| series.last()).copied();
        let (Some(entry), Some(init)) = (last("entry"), last("init")) else { return };
        let mut parts = Vec::new();
        // The marks of the last boot; each boot begins with `began`.
        let from = self
            .phases
            .iter()
            .rposition(|(phase, _)| phase == "began")
            .map_or(self.phases.len(), |at| at + 1);
        let marks = self.phases.get(from..).unwrap_or_default();
        let entering = marks.iter().find(|(phase, _)| phase == "entering").map(|(_, since)| *since);
        match entering {
            Some(entering) => {
                parts.push(("exec to main", entry - entering));
                let mut before = 0.0;
                for (phase, since) in marks.iter().filter(|(_, since)| *since <= entering) {
                    parts.push((phase, since - before));
                    before = *since;
                }
            }
            None => parts.push(("monitor", entry)),
        }
        parts.push(("guest to PID 1", init - entry));
        for (phase, value) in parts {
            let record =
                Record::of("boot", "timeline to PID 1", &self.monitor.name, "instructions", &[value]);
            results.push(record.phase(phase).conditions(conditions));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_lab_says_becomes_records() {
        let monitor = Monitor { kind: Kind::Firecrest, name: "firecrest".into(), path: "/f".into() };
        let mut case = Case {
            monitor: &monitor,
            mode: &MODES[0],
            seen: BTreeMap::new(),
            phases: Vec::new(),
            errors: Vec::new(),
        };
        for line in [
            "boot: entry 3000",
            "boot: user-exits 20",
            "firecrest: timeline: 99 ns began",
            "firecrest: timeline: 1500 ns planned",
            "firecrest: timeline: 2000 ns entering",
            "firecrest: timeline: 9000 ns first exit",
            "boot: init 35000",
        ] {
            case.take_in(line);
        }
        let mut results = Results::default();
        case.keep(&mut results).unwrap();
        let value = |name: &str| results.records.iter().find(|r| r.name == name).unwrap().value;
        assert_eq!(value("exits to user space to PID 1"), 20.0);
        assert_eq!(value("exec to PID 1"), 35000.0);
        let parts: Vec<_> = results.records.iter().filter(|record| record.phase.is_some()).collect();
        let told: Vec<_> = parts.iter().map(|part| (part.phase.as_deref().unwrap(), part.value)).collect();
        let expected =
            [("exec to main", 1000.0), ("planned", 1500.0), ("entering", 500.0), ("guest to PID 1", 32000.0)];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_boot_that_failed_is_an_error_for_ours() {
        let monitor = Monitor { kind: Kind::Firecrest, name: "firecrest".into(), path: "/f".into() };
        let mut case = Case {
            monitor: &monitor,
            mode: &MODES[3],
            seen: BTreeMap::new(),
            phases: Vec::new(),
            errors: Vec::new(),
        };
        case.take_in("boot: error PID 1 was not reached");
        assert!(case.keep(&mut Results::default()).is_err());
    }
}
