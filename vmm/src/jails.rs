//! The jails of one VM's threads.
//!
//! The vCPUs' filter is compiled when the VM is built: it shows whether the host can filter at all, and no vCPU waits for it.
//! Every other thread compiles its own, while the guest runs already.

use std::os::fd::RawFd;

use firecrest_devices::virtio::Job;
use firecrest_seccomp::{Filter, Jail, JailError, Role};

/// What a VM's threads get their filters from.
#[derive(Clone, Debug)]
pub(crate) struct Jails {
    jail: Jail,
    kicks: RawFd,
    vcpu: Filter,
}

impl Jails {
    /// For a VM whose vCPUs take their kicks from this descriptor.
    pub(crate) fn new(jail: Jail, kicks: RawFd) -> Result<Self, JailError> {
        Ok(Self { jail, kicks, vcpu: jail.filter(Role::Vcpu, kicks)? })
    }

    pub(crate) fn vcpu(&self) -> Filter {
        self.vcpu.clone()
    }

    /// For the calling thread.
    pub(crate) fn of(&self, role: Role) -> Result<Filter, JailError> {
        self.jail.filter(role, self.kicks)
    }
}

/// The role of a device's thread.
pub(crate) fn role(job: Job) -> Role {
    match job {
        Job::Disk => Role::Block,
        Job::DiskRing => Role::BlockUring,
        Job::Frames => Role::Net,
        Job::Streams => Role::VsockStreams,
        Job::Broker => Role::VsockBroker,
    }
}
