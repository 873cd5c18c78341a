//! What a benchmark found, in one form for all of them: printed as tables, kept as JSON, drawn by `--report`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::statistics::{median, range};
use crate::error::{Error, Result};
use crate::machine::Kvm;
use crate::{cargo, process};

/// One figure of one subject.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// The group of benchmarks it is from.
    pub group: String,
    /// What was measured.
    pub name: String,
    /// Whose figure it is: this program's, a peer's, the floor's.
    pub subject: String,
    /// Of a whole that is told in parts: which part this is. Parts are in the order of their records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    pub unit: String,
    /// The median.
    pub value: f64,
    pub min: f64,
    pub max: f64,
    /// How many measurements that is the median of.
    pub n: usize,
    /// What else was so: memory, guest, options.
    pub conditions: String,
}

impl Record {
    /// The figure that a series of measurements comes to; there has to be one at least.
    pub fn of(group: &str, name: &str, subject: &str, unit: &str, series: &[f64]) -> Self {
        let (min, max) = range(series);
        Self {
            group: group.to_owned(),
            name: name.to_owned(),
            subject: subject.to_owned(),
            phase: None,
            unit: unit.to_owned(),
            value: median(series),
            min,
            max,
            n: series.len(),
            conditions: String::new(),
        }
    }

    pub fn conditions(mut self, conditions: &str) -> Self {
        conditions.clone_into(&mut self.conditions);
        self
    }

    pub fn phase(mut self, phase: &str) -> Self {
        self.phase = Some(phase.to_owned());
        self
    }
}

/// What a run of benchmarks found.
#[derive(Clone, Debug, Default)]
pub struct Results {
    pub records: Vec<Record>,
    /// What could not be measured, and why.
    pub remarks: Vec<String>,
}

impl Results {
    pub fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Something that could not be measured: said at once, and kept with the figures.
    pub fn remark(&mut self, remark: impl Into<String>) {
        let remark = remark.into();
        println!("{remark}");
        self.remarks.push(remark);
    }
}

/// A file of results.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Document {
    /// The command that made it.
    pub command: String,
    /// The commit of the checkout, with a `+` where it had changes.
    pub commit: String,
    pub machine: String,
    pub records: Vec<Record>,
    pub remarks: Vec<String>,
}

impl Document {
    pub fn new(results: &Results) -> Self {
        let words = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        Self {
            command: format!("cargo xtask {words}"),
            commit: commit(),
            machine: machine(),
            records: results.records.clone(),
            remarks: results.remarks.clone(),
        }
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::new(format!("cannot put the results into JSON: {error}")))?;
        fs::write(path, text + "\n").map_err(|error| Error::io("write", path, &error))
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| Error::io("read", path, &error))?;
        serde_json::from_str(&text).map_err(|error| {
            Error::new(format!("{}: no results of `cargo xtask bench --json`: {error}", path.display()))
        })
    }
}

/// A benchmark that runs outside of a checkout is one of an unknown commit.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(cargo::workspace()).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty());
    if changed { commit + "+" } else { commit }
}

/// CPU, kernel and kind of KVM.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = process::output(Command::new("uname").arg("-r")).unwrap_or_default();
    let kvm = match Kvm::of_this_machine() {
        Kvm::Hardware => "KVM on hardware virtualisation",
        Kvm::Software => "KVM without hardware virtualisation (PVM)",
        Kvm::None => "no KVM",
    };
    format!("{cpus} x {model}, Linux {}, {kvm}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Scratch;

    #[test]
    fn a_record_is_the_median_and_the_range() {
        let record =
            Record::of("start", "exec to end", "firecrest", "ms", &[3.0, 1.0, 2.0]).conditions("128 MiB");
        assert_eq!((record.value, record.min, record.max, record.n), (2.0, 1.0, 3.0, 3));
    }

    #[test]
    fn results_survive_their_file() {
        let mut results = Results::default();
        results.push(Record::of("boot", "to PID 1", "peer", "instructions", &[7e7]).phase("guest"));
        results.push(Record::of("idle", "calls", "firecrest", "1/s", &[0.0]));
        results.remark("left out: io, no TUN");
        let scratch = Scratch::new("bench-record").unwrap();
        let path = scratch.path().join("results.json");
        Document::new(&results).write(&path).unwrap();
        let read = Document::read(&path).unwrap();
        assert_eq!(read.records, results.records);
        assert_eq!(read.remarks, results.remarks);
        assert!(!read.machine.is_empty() && !read.commit.is_empty());
    }

    #[test]
    fn another_file_is_refused_by_name() {
        let scratch = Scratch::new("bench-no-record").unwrap();
        let path = scratch.path().join("x.json");
        fs::write(&path, "{}").unwrap();
        assert!(Document::read(&path).unwrap_err().to_string().contains("x.json"));
    }
}
