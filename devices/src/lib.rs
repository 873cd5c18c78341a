//! The devices of a microVM, each a state machine that knows nothing of KVM or of the others.
//!
//! A device takes register accesses and gives back values, and asks for what it needs from outside through
//! a trait declared here: [`Interrupt`] to raise its line, [`ioapic::Router`] to say where a line leads.
//! Whoever owns a device decides how it is locked and which thread calls it.
//!
//! Everything that arrives through a register is the guest's, and the guest is hostile: no access panics,
//! allocates without a bound or loops on a guest's number.
//!
//! Unsafe code is denied but in [`host_io`], where system calls are given guest memory, and where a vsock
//! device dials without waiting.
#![deny(unsafe_code)]

pub mod block;
pub mod host_io;
pub mod ioapic;
pub mod net;
pub mod power;
pub mod rate_limit;
pub mod serial;
pub mod virtio;
pub mod vsock;

mod clock;
mod interrupt;
mod throttle;

#[cfg(any(test, feature = "test-utils"))]
pub mod testing;

#[cfg(test)]
mod jail_tests;

pub use interrupt::{Interrupt, eventfd};
