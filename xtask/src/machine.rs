//! What this machine can run: which of its KVM, the lab or nothing suits a test.

use std::fmt;
use std::fs::{self, OpenOptions};

/// The kind of KVM this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// On hardware virtualisation: boots anything.
    Hardware,
    /// `/dev/kvm` opens, but the CPU shows neither svm nor vmx: guest kernels are interpreted, and Linux does not boot.
    Software,
    /// No `/dev/kvm` that opens.
    None,
}

/// Where guests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Host,
    Lab,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "on this machine's KVM",
            Self::Lab => "in the lab",
        })
    }
}

impl Kvm {
    /// Looks at this machine.
    pub fn of_this_machine() -> Self {
        if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            return Self::None;
        }
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if has_hardware_flag(&cpuinfo) { Self::Hardware } else { Self::Software }
    }

    /// Where guests of a few instructions run.
    pub fn for_tiny_guests(self) -> Place {
        if self == Self::None { Place::Lab } else { Place::Host }
    }

    /// Where Linux guests run.
    pub fn for_linux_guests(self) -> Place {
        if self == Self::Hardware { Place::Host } else { Place::Lab }
    }
}

fn has_hardware_flag(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "svm" || flag == "vmx")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words() {
        assert!(has_hardware_flag("model: x\nflags\t\t: fpu vmx sse\n"));
        assert!(!has_hardware_flag("flags\t\t: fpu svm_lock sse\nvmx flags\t: vnmi\n"));
    }

    #[test]
    fn linux_needs_hardware() {
        assert_eq!(Kvm::Software.for_linux_guests(), Place::Lab);
        assert_eq!(Kvm::Software.for_tiny_guests(), Place::Host);
        assert_eq!(Kvm::None.for_tiny_guests(), Place::Lab);
        assert_eq!(Kvm::Hardware.for_linux_guests(), Place::Host);
    }
}
