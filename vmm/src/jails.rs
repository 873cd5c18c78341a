//! The filters of one VM's threads: compiled once, when the VM is built, and shared by the threads of a role.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::os::fd::RawFd;

use firecrest_devices::virtio::Job;
use firecrest_seccomp::{Filter, Jail, JailError, Role};

/// A VM's filters, by role.
#[derive(Clone, Debug)]
pub(crate) struct Filters {
    vcpu: Filter,
    others: BTreeMap<Role, Filter>,
}

impl Filters {
    /// For a VM that has threads of these roles besides its vCPUs, which take their kicks from this descriptor.
    pub(crate) fn new(
        jail: Jail,
        roles: impl IntoIterator<Item = Role>,
        kicks: RawFd,
    ) -> Result<Self, JailError> {
        let vcpu = jail.filter(Role::Vcpu, kicks)?;
        let roles: BTreeSet<_> = roles.into_iter().collect();
        let compile = |role| Ok((role, jail.filter(role, kicks)?));
        let others = roles.into_iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { vcpu, others })
    }

    /// The filter of a role that was named when the filters were made. One that was not would be a mistake, and is to
    /// be noticed: its threads can do what vCPUs can.
    pub(crate) fn get(&self, role: Role) -> Filter {
        self.others.get(&role).unwrap_or(&self.vcpu).clone()
    }
}

/// The roles that a device's thread can come to have: a disk's ring may turn out not to be had.
pub(crate) fn roles(job: Job) -> impl Iterator<Item = Role> {
    let instead = (job == Job::DiskRing).then_some(Role::Block);
    iter::once(role(job)).chain(instead)
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
