//! What one operation costs in exits and system calls, counted by perf from the kernel's tracepoints.
//!
//! Counted are whole runs, from the monitor's first instruction on, so that no count depends on when one looked. What
//! two runs of different length differ in is what the further operations cost: starting up and ending is the same
//! in both. These runs are not timed, since counting takes time.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::process;

/// Exits to user space because of a device register: reason 6 is KVM_EXIT_MMIO. KVM serves ioeventfds without one.
const EXIT: &str = "kvm:kvm_userspace_exit";
const EXIT_FILTER: &str = "reason == 6";
const CALL: &str = "raw_syscalls:sys_enter";

/// What a run came to, or one operation.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub register_exits: f64,
    /// System calls of all the monitor's threads, `KVM_RUN` among them.
    pub calls: f64,
}

/// Why nothing can be counted here, if so: perf is not there, or may not.
pub fn unavailable(file: &Path) -> Option<String> {
    let output = under_perf(&Command::new("true"), file).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            Some(why.lines().find(|line| !line.trim().is_empty()).unwrap_or("perf failed").to_owned())
        }
        Err(error) => Some(error.to_string()),
    }
}

/// The same command, counted into a file.
pub fn under_perf(command: &Command, file: &Path) -> Command {
    let mut perf = process::dies_with_us("perf");
    perf.args(["stat", "-x,", "-e", EXIT, "--filter", EXIT_FILTER, "-e", CALL, "-o"]).arg(file);
    perf.arg("--").arg(command.get_program()).args(command.get_args());
    perf
}

/// Reads such a file.
pub fn read(file: &Path) -> Result<Counts> {
    let text = std::fs::read_to_string(file).map_err(|error| Error::io("read", file, &error))?;
    let count =
        |event| count(&text, event).ok_or_else(|| Error::new(format!("perf has not counted {event}")));
    Ok(Counts { register_exits: count(EXIT)?, calls: count(CALL)? })
}

/// The count in perf's lines `COUNT,UNIT,EVENT,...`.
fn count(text: &str, event: &str) -> Option<f64> {
    let mut lines = text.lines().map(|line| line.split(','));
    lines.find_map(|mut words| {
        let count = words.next()?;
        (words.nth(1)? == event).then(|| count.parse().ok())?
    })
}

impl Counts {
    /// What one of the operations costs that a longer run has done more than a shorter one.
    pub fn of_one(shorter: (Self, f64), longer: (Self, f64)) -> Option<Self> {
        let operations = longer.1 - shorter.1;
        (operations > 0.0).then(|| Self {
            register_exits: (longer.0.register_exits - shorter.0.register_exits) / operations,
            calls: (longer.0.calls - shorter.0.calls) / operations,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        let text = "# started\n\n40,,kvm:kvm_userspace_exit,6,100.00,,\n<not counted>,,raw_syscalls:sys_enter,0,0,,\n";
        assert_eq!(count(text, EXIT), Some(40.0));
        assert_eq!(count(text, CALL), None);
    }

    #[test]
    fn starting_up_is_no_operation() {
        let shorter = (Counts { register_exits: 100.0, calls: 600.0 }, 10.0);
        let longer = (Counts { register_exits: 300.0, calls: 1000.0 }, 110.0);
        let one = Counts::of_one(shorter, longer).unwrap();
        assert_eq!((one.register_exits, one.calls), (2.0, 4.0));
        assert!(Counts::of_one(shorter, shorter).is_none());
    }
}
