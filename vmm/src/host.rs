//! What kind of KVM this host has, and what it can do.

use std::fmt;
use std::path::Path;

use crate::kvm::{self, KvmError};

/// The part of KVM that runs guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flavour {
    /// Intel VMX.
    Intel,
    /// AMD SVM.
    Amd,
    /// PVM: no hardware virtualisation; guest code of ring 3 runs as it is, all other is emulated.
    Pvm,
    /// None of these is loaded as a module: KVM is built in, or hidden.
    Unknown,
}

/// Said where a run ends in a way that PVM may be the reason of.
pub const PVM_HINT: &str = "this KVM is PVM: it emulates ring 0 with gaps and cannot run an unmodified kernel; \
    a host (or nested machine) with Intel VMX or AMD SVM can, as can an emulated one";

impl Flavour {
    /// Looks which module is loaded.
    #[must_use]
    pub fn detect() -> Self {
        [("kvm_intel", Self::Intel), ("kvm_amd", Self::Amd), ("kvm_pvm", Self::Pvm)]
            .into_iter()
            .find(|(module, _)| Path::new("/sys/module").join(module).exists())
            .map_or(Self::Unknown, |(_, flavour)| flavour)
    }

    /// What this kind of KVM cannot do, in a sentence; `None` where it can run any kernel.
    #[must_use]
    pub fn hint(self) -> Option<&'static str> {
        (self == Self::Pvm).then_some(PVM_HINT)
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intel => "Intel VMX",
            Self::Amd => "AMD SVM",
            Self::Pvm => "PVM (no hardware virtualisation)",
            Self::Unknown => "unknown kind",
        })
    }
}

/// Checks that KVM is there and has all that is needed, and says of what kind it is.
///
/// # Errors
/// The same as [`Builder::build`](crate::Builder::build) would give.
pub fn check(device: impl AsRef<Path>) -> Result<Flavour, KvmError> {
    kvm::open(device.as_ref()).map(|_| Flavour::detect())
}
