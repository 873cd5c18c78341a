//! The register map of virtio-mmio, version 2, and the device status bits.
//!
//! Source: VIRTIO 1.2, sections 4.2.2 (MMIO device register layout), 2.1 (device status) and 6 (reserved
//! feature bits).

pub(super) const MAGIC_VALUE: u64 = 0x000;
pub(super) const VERSION: u64 = 0x004;
pub(super) const DEVICE_ID: u64 = 0x008;
pub(super) const VENDOR_ID: u64 = 0x00c;
pub(super) const DEVICE_FEATURES: u64 = 0x010;
pub(super) const DEVICE_FEATURES_SEL: u64 = 0x014;
pub(super) const DRIVER_FEATURES: u64 = 0x020;
pub(super) const DRIVER_FEATURES_SEL: u64 = 0x024;
pub(super) const QUEUE_SEL: u64 = 0x030;
pub(super) const QUEUE_NUM_MAX: u64 = 0x034;
pub(super) const QUEUE_NUM: u64 = 0x038;
pub(super) const QUEUE_READY: u64 = 0x044;
/// A write of a queue's index here is a kick: the only register a driver writes for each batch of work.
pub const QUEUE_NOTIFY: u64 = 0x050;
pub(super) const INTERRUPT_STATUS: u64 = 0x060;
/// A write here clears the bits written in the interrupt status.
pub const INTERRUPT_ACK: u64 = 0x064;
pub(super) const STATUS: u64 = 0x070;
pub(super) const QUEUE_DESC_LOW: u64 = 0x080;
pub(super) const QUEUE_DESC_HIGH: u64 = 0x084;
pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x094;
pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
pub(super) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
pub(super) const SHM_LEN_LOW: u64 = 0x0b0;
pub(super) const SHM_BASE_HIGH: u64 = 0x0bc;
pub(super) const CONFIG_GENERATION: u64 = 0x0fc;
pub(super) const CONFIG: u64 = 0x100;

/// "virt".
pub(super) const MAGIC: u32 = 0x7472_6976;
/// The version of the layout: 1 is what was before the standard.
pub(super) const LAYOUT_VERSION: u32 = 2;
/// The vendor's id: nobody gives them out, and drivers do not look. "FCST".
pub(super) const VENDOR: u32 = 0x5453_4346;

/// Interrupt status: a queue has used buffers.
pub const INTERRUPT_USED: u32 = 1;
/// Interrupt status: the configuration, or the device's status, has changed.
pub(super) const INTERRUPT_CONFIG: u32 = 2;

/// The device status register's bits.
pub mod status {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u32 = 2;
    /// The driver is ready: the device runs.
    pub const DRIVER_OK: u32 = 4;
    /// The features are agreed on.
    pub const FEATURES_OK: u32 = 8;
    /// The device cannot go on (set by the device).
    pub const NEEDS_RESET: u32 = 64;
    /// The driver has given up.
    pub const FAILED: u32 = 128;

    /// What a driver sets on its way up, in order.
    pub const STEPS: [u32; 4] = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];
}

/// Feature bits that belong to the transport and the rings, not to a kind of device.
pub mod feature {
    /// A descriptor may refer to a table of descriptors.
    pub const RING_INDIRECT_DESC: u64 = 1 << 28;
    /// Each side tells the other from which index on it wants to hear.
    pub const RING_EVENT_IDX: u64 = 1 << 29;
    /// The device follows the standard, not what was before it.
    pub const VERSION_1: u64 = 1 << 32;
}
