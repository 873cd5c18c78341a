//! Everything a microVM needs in memory before its first instruction, as plain data.
//!
//! A kernel file goes in ([`Image::parse`]), a description of the machine goes in ([`Request`]), and out comes a
//! [`Plan`]: which bytes of the file lie where, which further bytes lie where, and the registers of the boot CPU.
//! The crate never touches guest memory and knows nothing of KVM: whoever carries a plan out may copy the
//! segments, or map them from the file.
//!
//! What must hold:
//! - A kernel file is untrusted. No content of it makes this crate panic, allocate more than some tens of KiB,
//!   or loop longer than fixed limits allow; each way a file can be wrong is an error of its own.
//! - In a plan every segment, the initrd and every blob lie inside the RAM ranges given, and none overlaps
//!   another. Pages that nothing names must read as zero.
//! - The result depends on the arguments only: no clock, no environment, no file beyond the one given.
//!
//! x86-64 specifics live in [`x86_64`]; the rest of the crate uses that module through a handful of functions.

#![forbid(unsafe_code)]

mod bytes;
mod cmdline;
mod image;
mod initrd;
mod machine;
mod memory;
mod plan;
mod source;
pub mod x86_64;

pub use image::{Format, Image, ImageError, Segment};
pub use machine::{Machine, MmioDevice};
pub use plan::{Blob, Plan, PlanError, Protocol, Request, plan};
pub use source::ReadAt;
pub use x86_64::cpu::{CpuState, DescriptorTable, SegmentState};
pub use x86_64::layout;

#[cfg(test)]
#[path = "../tests/support/kernels.rs"]
mod kernels;
