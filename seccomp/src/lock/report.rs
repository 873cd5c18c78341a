//! What a lock came to.

use std::fmt;
use std::path::Path;

use super::error::LockError;
use super::{landlock, sys};

/// What has been done, and what has not, and why.
#[derive(Clone, Debug, Default)]
pub struct Report {
    done: Vec<&'static str>,
    missing: Vec<String>,
}

impl Report {
    /// What has been done.
    pub fn done(&self) -> impl Iterator<Item = &'static str> {
        self.done.iter().copied()
    }

    /// What has not, each with the reason; nothing where all that was asked for is done.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.missing.iter().map(String::as_str)
    }

    pub(super) fn add(&mut self, measure: &'static str) {
        self.done.push(measure);
    }

    pub(super) fn strictly(&self) -> Result<(), LockError> {
        if self.missing.is_empty() { Ok(()) } else { Err(LockError::Strict(self.clone())) }
    }

    pub(super) fn bounding_set(&mut self) {
        self.missing.push(
            "the capability bounding set stays: emptying it takes CAP_SETPCAP, which namespaces give \
             (with no_new_privs, nothing can be gained from it)"
                .to_owned(),
        );
    }

    /// What the kernel's Landlock does not close, and neither does anything else.
    pub(super) fn landlock(&mut self, abi: &Result<u32, String>, namespaces: bool, pid_namespace: bool) {
        match abi {
            Ok(abi) => {
                let open: Vec<_> = landlock::open_before(*abi)
                    .filter(|gap| match gap.closed_by {
                        landlock::Otherwise::Namespaces => !namespaces,
                        landlock::Otherwise::PidNamespace => !pid_namespace,
                    })
                    .map(|gap| gap.what)
                    .collect();
                if !open.is_empty() {
                    let closed_by = if namespaces { "pid-namespace" } else { "namespaces" };
                    self.missing.push(format!(
                        "Landlock of this kernel (ABI {abi}) leaves open: {} (a lock with {closed_by} does not)",
                        open.join(", ")
                    ));
                }
            }
            Err(reason) => self.missing.push(format!(
                "Landlock is not in this kernel, or off ({reason}): files can be opened that the user may open{}",
                if namespaces { "; the root is empty, though" } else { "" }
            )),
        }
    }

    /// Whether a socket can be removed by who the process is now.
    pub(super) fn removal(&mut self, path: &Path, directory: &Path) {
        if let Err(error) = sys::is_writable(directory) {
            self.missing.push(format!(
                "{} stays when the process ends: no file can be removed from its directory ({error})",
                path.display()
            ));
        }
    }
}

impl fmt::Display for Report {
    /// What is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.missing.join("; "))
    }
}
