//! The virtio devices of one VM: where they lie, how KVM reaches them, which threads they have.
//!
//! Device *n* has its registers at `VIRTIO_MMIO_BASE + n * VIRTIO_MMIO_SIZE` and its interrupt on GSI
//! `VIRTIO_GSI_FIRST + n`. With [`RegisterAccess::Mapped`] no access of a driver at work reaches user space: reads
//! find the register page itself, which is a read-only memory slot; kicks and acknowledgements of used
//! buffers are taken by eventfds inside KVM. `firecrest_devices::virtio`'s transport says why that is sound.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firecrest_boot::{MmioDevice, layout};
use firecrest_devices::virtio::{
    Device, Kind, Memory, QueueCounts, REGISTERS_SIZE, RegisterPages, Transport, Worker, mmio,
};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::error::BuildError;
use crate::interrupt::{IrqLine, event};
use crate::kvm::KvmError;

const _: () = assert!(layout::VIRTIO_MMIO_SIZE == REGISTERS_SIZE);

/// How a guest's accesses to the registers of its virtio devices, of the serial port and of the IOAPIC are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterAccess {
    /// Reads find memory, and kicks, acknowledgements and bytes for the serial port end in KVM: a driver at work causes no
    /// exit to user space.
    #[default]
    Mapped,
    /// Every access but kicks is an exit to user space. For comparison, and for looking at what a driver does.
    Trapped,
}

/// The devices of a VM.
pub(crate) struct DeviceSet {
    transports: Vec<Mutex<Transport>>,
    pages: RegisterPages,
    registers: RegisterAccess,
    /// What takes the acknowledgements; nobody reads it.
    acknowledged: Option<EventFd>,
}

/// A device's thread, to be started.
pub(crate) struct DeviceThread {
    pub(crate) name: String,
    pub(crate) worker: Worker,
}

/// What has been counted of a VM since it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Exits to user space, by vCPU.
    pub exits: Vec<u64>,
    /// The devices, in the order in which they were added.
    pub devices: Vec<DeviceStats>,
}

/// What has been counted of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceStats {
    /// The name of its thread, or of the first one: `fc-blk0`.
    pub name: String,
    /// Its queues, by index.
    pub queues: Vec<QueueCounts>,
}

/// The firmware tables' view of `count` devices.
pub(crate) fn places(count: usize) -> Vec<MmioDevice> {
    let device = |index: u32| MmioDevice {
        base: base(index),
        size: layout::VIRTIO_MMIO_SIZE,
        gsi: layout::VIRTIO_GSI_FIRST.saturating_add(index),
    };
    (0..layout::MAX_VIRTIO_DEVICES).take(count).map(device).collect()
}

fn base(index: u32) -> u64 {
    layout::VIRTIO_MMIO_BASE.saturating_add(u64::from(index).saturating_mul(layout::VIRTIO_MMIO_SIZE))
}

/// Pages for the registers of the serial port, which is the first, and of `count` devices.
pub(crate) fn pages(count: usize) -> Result<RegisterPages, BuildError> {
    RegisterPages::new(count.saturating_add(1))
        .map_err(|source| BuildError::Host { what: "the devices' register pages", source })
}

/// Maps the register pages into the guest, as memory slot `slot`.
pub(crate) fn map(vm: &VmFd, pages: &RegisterPages, slot: u32) -> Result<(), KvmError> {
    let region = kvm_userspace_memory_region {
        slot,
        guest_phys_addr: layout::SERIAL_PAGE,
        memory_size: pages.region().size() as u64,
        userspace_addr: pages.region().as_ptr().expose_provenance() as u64,
        flags: KVM_MEM_READONLY,
    };
    // SAFETY: the region is mapped, is only ever accessed as atomics or by the kernel, and lives as long as
    // the devices do, which outlive the VM's vCPUs.
    unsafe { vm.set_user_memory_region(region) }
        .map_err(KvmError::operation("KVM_SET_USER_MEMORY_REGION (device registers)"))
}

impl DeviceSet {
    /// Puts devices behind their registers, in order, and registers their lines and doorbells with KVM.
    pub(crate) fn new(
        vm: &VmFd,
        devices: Vec<Device>,
        pages: RegisterPages,
        registers: RegisterAccess,
        memory: &Arc<Memory>,
    ) -> Result<(Self, Vec<DeviceThread>), BuildError> {
        let mut set = Self { transports: Vec::new(), pages, registers, acknowledged: None };
        let mut threads = Vec::new();
        for (place, device) in places(devices.len()).into_iter().zip(devices) {
            let index = set.transports.len();
            let host = |what| move |source| BuildError::Host { what, source };
            let line = IrqLine::new(vm, place.gsi)?;
            let page = set.pages.page(index.saturating_add(1)).ok_or(BuildError::Devices { count: index })?;
            let name = thread_name(device.kind, index);
            let (transport, workers) = Transport::new(device, page, Box::new(line), Arc::clone(memory))
                .map_err(host("a device's thread"))?;
            set.add_doorbells(vm, place.base, &transport)?;
            set.transports.push(Mutex::new(transport));
            threads.extend(workers.into_iter().enumerate().map(|(number, worker)| DeviceThread {
                name: if number == 0 { name.clone() } else { format!("{name}.{number}") },
                worker,
            }));
        }
        Ok((set, threads))
    }

    fn add_doorbells(&mut self, vm: &VmFd, base: u64, transport: &Transport) -> Result<(), BuildError> {
        let register = |event: &EventFd, offset: u64, value: u32| {
            let address = IoEventAddress::Mmio(base.saturating_add(offset));
            vm.register_ioevent(event, &address, value).map_err(KvmError::operation("KVM_IOEVENTFD"))
        };
        for (index, kick) in (0..).zip(transport.kicks()) {
            register(kick, mmio::QUEUE_NOTIFY, index)?;
        }
        if self.registers == RegisterAccess::Mapped {
            if self.acknowledged.is_none() {
                self.acknowledged = Some(event()?);
            }
            if let Some(acknowledged) = &self.acknowledged {
                register(acknowledged, mmio::INTERRUPT_ACK, mmio::INTERRUPT_USED)?;
            }
        }
        Ok(())
    }

    /// Number of devices.
    pub(crate) fn len(&self) -> usize {
        self.transports.len()
    }

    /// The guest writes at a guest physical address; ignored where no device is.
    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        if let Some((mut transport, offset)) = self.at(address) {
            transport.write(offset, data);
        }
    }

    /// The guest reads at a guest physical address; false where no device is.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let found = self.at(address);
        if let Some((transport, offset)) = &found {
            transport.read(*offset, data);
        }
        found.is_some()
    }

    fn at(&self, address: u64) -> Option<(MutexGuard<'_, Transport>, u64)> {
        let offset = address.checked_sub(layout::VIRTIO_MMIO_BASE)?;
        let index = usize::try_from(offset.checked_div(layout::VIRTIO_MMIO_SIZE)?).ok()?;
        let transport = self.transports.get(index)?;
        Some((lock(transport), offset.checked_rem(layout::VIRTIO_MMIO_SIZE)?))
    }

    /// Has every device look at its back end again.
    pub(crate) fn rescan(&self) {
        self.transports.iter().for_each(|transport| lock(transport).rescan());
    }

    pub(crate) fn stats(&self) -> Vec<DeviceStats> {
        let device = |(index, transport): (usize, &Mutex<Transport>)| {
            let transport = lock(transport);
            DeviceStats { name: thread_name(transport.kind(), index), queues: transport.counts() }
        };
        self.transports.iter().enumerate().map(device).collect()
    }

    /// Ends the devices' threads, once they have finished what is in flight.
    pub(crate) fn close(&self) {
        self.transports.iter().for_each(|transport| lock(transport).close());
    }
}

impl fmt::Debug for DeviceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSet").field("devices", &self.transports.len()).finish_non_exhaustive()
    }
}

fn thread_name(kind: Kind, index: usize) -> String {
    let kind = match kind {
        Kind::Block => "blk",
        Kind::Net => "net",
        Kind::Vsock => "vsock",
    };
    format!("fc-{kind}{index}")
}

fn lock(transport: &Mutex<Transport>) -> MutexGuard<'_, Transport> {
    // A panic under the lock has been reported and ends the run.
    transport.lock().unwrap_or_else(PoisonError::into_inner)
}
