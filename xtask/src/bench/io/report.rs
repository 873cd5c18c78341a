//! A run of the guest: its lines `io: NAME VALUE`, and the CPU time the monitor took between two of them.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::process;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub operations: f64,
    pub bytes: f64,
    pub nanoseconds: f64,
    pub kicks: f64,
    /// With those of the warm-up: what the host must have seen.
    pub all_operations: f64,
    pub all_bytes: f64,
    /// CPU time of all the monitor's threads but the vCPU's; none where this process looked too late.
    pub device_nanoseconds: Option<f64>,
}

/// Runs a monitor to its end.
pub fn listen(command: &mut Command, code: i32, limit: Duration) -> Result<Report> {
    let mut child =
        process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let (pid, output) = (child.id(), child.stdout.take());
    let (mut report, mut begin, mut end, mut failure) = (Report::default(), None, None, None);
    if let Some(output) = output {
        process::each_line(output, limit, |line| match words(line) {
            Some(("begin", _)) => begin = Some(device_time(pid)),
            Some(("end", _)) => end = Some(device_time(pid)),
            Some(("error", why)) => failure = Some(format!("the guest says: {why}")),
            Some((name, value)) => report.take(name, value),
            None => {}
        });
    }
    // Its output has ended, or the limit is over; either way little is left to wait for.
    let status = process::wait_limited(&mut child, Duration::from_secs(2))?;
    if let Some(failure) = failure {
        return Err(Error::new(failure));
    }
    let (Some(status), Some(begin), Some(end)) = (status, begin, end) else {
        return Err(Error::new(match status {
            None => format!("not ended after {} s", limit.as_secs()),
            Some(status) => format!("{status} before the guest had a result: {}", last_words(&mut child)),
        }));
    };
    if status.code() != Some(code) || report.operations == 0.0 || report.nanoseconds == 0.0 {
        return Err(Error::new(format!("{status}, not code {code}, or a result of nothing")));
    }
    report.device_nanoseconds = begin.zip(end).map(|(begin, end)| end - begin);
    Ok(report)
}

/// What a monitor that gave up has to say.
fn last_words(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = &mut child.stderr {
        // What cannot be read is not told.
        let _ = stderr.read_to_string(&mut text);
    }
    text.lines().last().unwrap_or("it said nothing").to_owned()
}

/// CPU time of a process's threads but the vCPU's, in nanoseconds.
fn device_time(pid: u32) -> Option<f64> {
    let mut sum = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let thread = thread.ok()?.path();
        let name = fs::read_to_string(thread.join("comm")).ok()?;
        // The monitors' names for it differ in one character.
        if !name.starts_with("fc-vcpu") && !name.starts_with("fc_vcpu") {
            let times = fs::read_to_string(thread.join("schedstat")).ok()?;
            sum += times.split_whitespace().next()?.parse::<f64>().ok()?;
        }
    }
    Some(sum)
}

/// Name and value of a line of the guest's. A monitor's own output may stand before it.
fn words(line: &str) -> Option<(&str, &str)> {
    let rest = line.split_once("io: ")?.1;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}

impl Report {
    fn take(&mut self, name: &str, value: &str) {
        let place = match name {
            "operations" => &mut self.operations,
            "bytes" => &mut self.bytes,
            "ns" => &mut self.nanoseconds,
            "kicks" => &mut self.kicks,
            "all-operations" => &mut self.all_operations,
            "all-bytes" => &mut self.all_bytes,
            _ => return,
        };
        *place = value.trim().parse().unwrap_or(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_guest_are_found() {
        assert_eq!(words("io: begin"), Some(("begin", "")));
        assert_eq!(words("log line io: ns 12"), Some(("ns", "12")));
        assert_eq!(words("io: error no such device"), Some(("error", "no such device")));
        assert_eq!(words("Running version 1"), None);
    }

    #[test]
    fn a_run_is_read() {
        let lines = "echo io: begin; echo io: end; echo io: operations 10; echo io: ns 1000; exit 3";
        let report = listen(Command::new("sh").args(["-c", lines]), 3, Duration::from_secs(5)).unwrap();
        assert_eq!((report.operations, report.nanoseconds), (10.0, 1000.0));
    }

    #[test]
    fn a_run_without_a_result_is_none() {
        let listen = |lines| listen(Command::new("sh").args(["-c", lines]), 0, Duration::from_secs(5));
        assert_eq!(listen("echo io: error lost").unwrap_err().to_string(), "the guest says: lost");
        assert!(listen("echo no disk >&2; exit 1").unwrap_err().to_string().contains("no disk"));
        assert!(listen("echo io: begin; echo io: end").unwrap_err().to_string().contains("nothing"));
    }
}
