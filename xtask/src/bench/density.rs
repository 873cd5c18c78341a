//! The density benchmark: microVMs built, run to their guest's first exit and torn down in a second, one after the other
//! and many at once, and what it takes to have a thousand.

use std::path::Path;
use std::process::Command;

use super::record::{Record, Results};
use super::start;
use crate::error::{Error, Result};
use crate::{cargo, process};

/// At once.
const THREADS: usize = 16;
const MACHINES: usize = 400;
const LIVE: usize = 1000;
const STEP: usize = 100;

pub fn run(runs: usize, results: &mut Results) -> Result<()> {
    println!("xtask: bench: building");
    let many = cargo::many_program()?;
    let work = start::work_directory()?;
    let (tiny, idle) = (start::tiny_guest(&work)?, start::idle_guest(&work)?);
    for (threads, name) in [(1, "one after the other"), (THREADS, "16 at once")] {
        let mut series = Vec::new();
        for _ in 0..runs {
            let text = tell(&many, "run", &tiny, &[threads, MACHINES])?;
            series.extend(value(&text, "seconds").map(|seconds| MACHINES as f64 / seconds));
        }
        let name = format!("built, run to the first exit and torn down, {name}");
        push(&name, "firecrest", "1/s", &series, results)?;
    }
    let texts = (0..runs).map(|_| tell(&many, "live", &idle, &[LIVE, STEP])).collect::<Result<Vec<_>>>()?;
    let each = |name: &str| texts.iter().filter_map(|text| value(text, name)).collect::<Vec<_>>();
    for live in (STEP..=LIVE).step_by(STEP) {
        let per_second: Vec<_> =
            each(&format!("seconds-to-{live}")).iter().map(|seconds| STEP as f64 / seconds).collect();
        push(
            "started while so many are live",
            &format!("firecrest, to {live}"),
            "1/s",
            &per_second,
            results,
        )?;
    }
    let down: Vec<_> = each("teardown-seconds").iter().map(|seconds| LIVE as f64 / seconds).collect();
    push("torn down, of 1,000 live", "firecrest", "1/s", &down, results)
}

fn push(name: &str, subject: &str, unit: &str, series: &[f64], results: &mut Results) -> Result<()> {
    if series.is_empty() {
        return Err(Error::new(format!("benches/many has not told: {name}")));
    }
    let conditions = "benches/many: one process, 32 MiB and 1 vCPU each, no devices, jailed";
    results.push(Record::of("density", name, subject, unit, series).conditions(conditions));
    Ok(())
}

fn tell(many: &Path, mode: &str, guest: &Path, numbers: &[usize]) -> Result<String> {
    let mut command = Command::new(many);
    process::output(command.arg(mode).arg(guest).args(numbers.iter().map(usize::to_string)))
}

/// The value of a line `many: NAME VALUE`.
pub fn value(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("many: ")?.split_once(' '));
    lines.find_map(|(known, value)| (known == name).then(|| value.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "many: seconds-to-100 0.5\nmany: seconds-to-1000 2\n";
        assert_eq!(value(text, "seconds-to-100"), Some(0.5));
        assert_eq!(value(text, "seconds"), None);
    }
}
