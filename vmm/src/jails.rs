//! The filters of one VM's threads: compiled once, when the VM is built, and shared by the threads of a role.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;

use firecrest_devices::virtio::Job;
use firecrest_seccomp::{Filter, Jail, JailError, Role};

/// A VM's filters, by role.
#[derive(Debug, Default)]
pub(crate) struct Filters(BTreeMap<Role, Filter>);

impl Filters {
    /// For a VM that has threads of these roles, and whose vCPUs take their kicks from this descriptor.
    pub(crate) fn new(
        jail: Jail,
        roles: impl IntoIterator<Item = Role>,
        kicks: RawFd,
    ) -> Result<Self, JailError> {
        let roles: BTreeSet<_> = roles.into_iter().collect();
        let compile = |role| Ok((role, jail.filter(role, kicks)?));
        roles.into_iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// The filter of a role that was named when the filters were made; `None` where it was not, and then there is
    /// no thread for it either.
    pub(crate) fn get(&self, role: Role) -> Option<&Filter> {
        self.0.get(&role)
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
