//! A device's way to its driver: the interrupt, and the registers that say why.

use crate::Interrupt;

use super::mmio::{INTERRUPT_CONFIG, INTERRUPT_STATUS, INTERRUPT_USED, STATUS, status};
use super::page::RegisterPage;

/// Raises a device's interrupt. Shared by the transport and the device's workers.
///
/// Why no interrupt is lost: the reason is set in the interrupt status before the edge, and a driver that
/// takes the edge reads the status, acknowledges, and only then looks at its rings and the configuration.
/// What was changed before an acknowledgement is seen by the look that follows it; what is changed after
/// it sets the status again and sends another edge.
pub struct Line {
    page: RegisterPage,
    interrupt: Box<dyn Interrupt + Sync>,
}

impl Line {
    /// The line of the device whose registers are in `page`.
    pub fn new(page: RegisterPage, interrupt: Box<dyn Interrupt + Sync>) -> Self {
        Self { page, interrupt }
    }

    /// A queue has used buffers.
    pub fn used(&self) {
        self.raise(INTERRUPT_USED);
    }

    /// Replaces `bytes` of the configuration from `offset` on, and tells the driver.
    pub fn change_config(&self, offset: usize, bytes: &[u8]) {
        self.page.write_config(offset, bytes);
        self.raise(INTERRUPT_CONFIG);
    }

    /// The device cannot go on until the driver resets it (`DEVICE_NEEDS_RESET`).
    pub fn needs_reset(&self) {
        // To a driver that has not set DRIVER_OK the standard forbids notifications; it sees the bit when
        // it next reads the status.
        let before = self.page.set(STATUS, status::NEEDS_RESET);
        if before & status::DRIVER_OK != 0 && before & status::NEEDS_RESET == 0 {
            self.raise(INTERRUPT_CONFIG);
        }
    }

    fn raise(&self, reason: u32) {
        self.page.set(INTERRUPT_STATUS, reason);
        if let Err(error) = self.interrupt.signal() {
            // An eventfd's counter that is full: KVM has edges of this line to deliver as it is.
            log::debug!("an interrupt was not raised: {error}");
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("page", &self.page).finish_non_exhaustive()
    }
}
