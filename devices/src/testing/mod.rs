//! The driver's side of a device, for tests and fuzz targets: a [`Driver`] that negotiates through the
//! registers, keeps its own rings in guest memory, and can break every rule; and what every
//! device has to pass ([`conformance`]).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

pub mod conformance;
mod driver;
#[cfg(test)]
pub mod namespace;
mod script;

pub use driver::{BUFFERS, Bench, Driver, RingLayout, Seg, memory};
pub use script::play;
