//! Interrupts between devices and KVM: lines (irqfds) and where they lead (GSI routes).
//!
//! The GSIs are the pins of the IOAPIC, counted from its base. A line is registered with KVM once; what an edge on it does is decided by
//! the route, which follows the IOAPIC's redirection table.

use std::io;
use std::sync::Arc;

use firecrest_boot::layout;
use firecrest_devices::Interrupt;
use firecrest_devices::ioapic::{Message, Router};
use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use crate::error::BuildError;
use crate::kvm::KvmError;

/// A device's line: an eventfd that KVM turns into the interrupt of one GSI.
pub(crate) struct IrqLine(EventFd);

impl IrqLine {
    /// A new line for `gsi`.
    pub(crate) fn new(vm: &VmFd, gsi: u32) -> Result<Self, BuildError> {
        let event = event()?;
        vm.register_irqfd(&event, gsi).map_err(KvmError::operation("KVM_IRQFD"))?;
        Ok(Self(event))
    }
}

/// A new eventfd, for a VM that is being built.
pub(crate) fn event() -> Result<EventFd, BuildError> {
    firecrest_devices::eventfd().map_err(|source| BuildError::Host { what: "an eventfd", source })
}

impl Interrupt for IrqLine {
    fn signal(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The VM's GSI routes.
pub(crate) struct Routes(pub(crate) Arc<VmFd>);

impl Router for Routes {
    fn set_routes(&mut self, routes: &[(u8, Message)]) -> io::Result<()> {
        let entries: Vec<_> = routes.iter().map(|(pin, message)| entry(*pin, *message)).collect();
        let table = KvmIrqRouting::from_entries(&entries).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.0.set_gsi_routing(&table).map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}

fn entry(pin: u8, message: Message) -> kvm_irq_routing_entry {
    let gsi = layout::IOAPIC_GSI_BASE.saturating_add(pin.into());
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = message.address;
    entry.u.msi.data = message.data;
    entry
}
