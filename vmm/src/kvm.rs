//! The KVM device: opening it, and checking that it can do what is needed, before anything is made.

use std::ffi::{CString, c_ulong};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kvm_bindings as kvm;
use kvm_ioctls::{Kvm, VcpuFd};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;
use vmm_sys_util::syscall::SyscallReturnCode;

/// Where KVM is found unless the builder is told otherwise.
pub const DEVICE: &str = "/dev/kvm";

/// The API version that `linux/kvm.h` has had since Linux 2.6.22.
const API_VERSION: i32 = kvm::KVM_API_VERSION.cast_signed();

/// The capabilities we use and cannot do without, by the names of `Documentation/virt/kvm/api.rst`.
const NEEDED: [(&str, u32); 9] = [
    ("KVM_CAP_USER_MEMORY", kvm::KVM_CAP_USER_MEMORY),
    ("KVM_CAP_EXT_CPUID", kvm::KVM_CAP_EXT_CPUID),
    ("KVM_CAP_MP_STATE", kvm::KVM_CAP_MP_STATE),
    ("KVM_CAP_IRQ_ROUTING", kvm::KVM_CAP_IRQ_ROUTING),
    ("KVM_CAP_IRQFD", kvm::KVM_CAP_IRQFD),
    ("KVM_CAP_IOEVENTFD", kvm::KVM_CAP_IOEVENTFD),
    ("KVM_CAP_READONLY_MEM", kvm::KVM_CAP_READONLY_MEM),
    ("KVM_CAP_TSC_DEADLINE_TIMER", kvm::KVM_CAP_TSC_DEADLINE_TIMER),
    ("KVM_CAP_SPLIT_IRQCHIP", kvm::KVM_CAP_SPLIT_IRQCHIP),
];

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvmError {
    /// There is no such device.
    #[error(
        "no KVM at {path}: load the module (kvm_intel or kvm_amd), or enable (nested) virtualisation for this machine",
        path = path.display()
    )]
    NoDevice {
        /// The device's path.
        path: PathBuf,
    },
    /// The device may not be opened.
    #[error("no permission to open {path}: join the group that owns it, or have its access list extended",
        path = path.display())]
    NoPermission {
        /// The device's path.
        path: PathBuf,
    },
    /// The device could not be opened for another reason.
    #[error("cannot open {path}", path = path.display())]
    Open {
        /// The device's path.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The file is not KVM's device, or an unknown version of it.
    #[error("{path} does not speak version {API_VERSION} of the KVM API (it answered {answer})", path = path.display())]
    Version {
        /// The device's path.
        path: PathBuf,
        /// What it answered; -1 from anything that is not KVM.
        answer: i32,
    },
    /// Capabilities are missing.
    #[error("this KVM lacks {}", missing.join(", "))]
    Missing {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// An operation of KVM failed.
    #[error("KVM refused {operation}")]
    Operation {
        /// The ioctl.
        operation: &'static str,
        /// What KVM said.
        source: io::Error,
    },
}

impl KvmError {
    /// For `map_err` on what kvm-ioctls returns.
    pub(crate) fn operation(operation: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Operation { operation, source: io::Error::from_raw_os_error(error.errno()) }
    }
}

/// Opens the device and checks it.
pub(crate) fn open(path: &Path) -> Result<Kvm, KvmError> {
    let name = CString::new(path.as_os_str().as_bytes());
    let opened = name.map_err(io::Error::from).and_then(|name| {
        Kvm::new_with_path(name).map_err(|error| io::Error::from_raw_os_error(error.errno()))
    });
    let kvm = opened.map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => KvmError::NoDevice { path },
            io::ErrorKind::PermissionDenied => KvmError::NoPermission { path },
            _ => KvmError::Open { path, source },
        }
    })?;
    let answer = kvm.get_api_version();
    if answer != API_VERSION {
        return Err(KvmError::Version { path: path.to_owned(), answer });
    }
    let missing = missing(|capability| kvm.check_extension_raw(capability) > 0);
    if missing.is_empty() { Ok(kvm) } else { Err(KvmError::Missing { missing }) }
}

/// The names of the needed capabilities that `has` denies.
fn missing(has: impl Fn(c_ulong) -> bool) -> Vec<&'static str> {
    NEEDED.iter().filter(|(_, number)| !has(c_ulong::from(*number))).map(|(name, _)| *name).collect()
}

/// `struct kvm_signal_mask` with the kernel's 64-bit set in place of the flexible array.
#[repr(C, packed)]
struct SignalMask {
    len: u32,
    set: u64,
}

// The number carries the size of the header alone.
ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, kvm::KVMIO, 0x8b, kvm::kvm_signal_mask);

/// The real-time signals that libc keeps for itself, from 32 on: `setuid` and thread cancellation of the embedder
/// need them delivered. No other is open: one that is pending for the process while its own threads block it would
/// make `KVM_RUN` return at once, over and over.
const LIBC_SIGNALS: u64 = if cfg!(target_env = "musl") { 0b111 << 31 } else { 0b11 << 31 };

/// Opens `signal` (and libc's own) inside `KVM_RUN` of this vCPU, and closes all others there.
pub(crate) fn open_signal_while_running(vcpu: &VcpuFd, signal: libc::c_int) -> Result<(), KvmError> {
    // Signal n is bit n - 1; the builder has checked that it is a signal.
    let kick = u32::try_from(signal).ok().and_then(|n| 1u64.checked_shl(n.wrapping_sub(1))).unwrap_or(0);
    let mask = SignalMask { len: 8, set: !(kick | LIBC_SIGNALS) };
    // SAFETY: the descriptor is a vCPU's, and KVM reads `len` and then that many bytes, which is `mask`.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_SET_SIGNAL_MASK(), &mask) };
    SyscallReturnCode(result)
        .into_empty_result()
        .map_err(|source| KvmError::Operation { operation: "KVM_SET_SIGNAL_MASK", source })
}

#[cfg(test)]
#[path = "kvm_tests.rs"]
mod tests;
