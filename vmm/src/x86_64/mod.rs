//! What is x86-64's own: CPUID, the boot CPU's first registers, the state a crash is reported with.

mod cpuid;
mod registers;

pub(crate) use cpuid::Template;
pub(crate) use registers::{set_boot_state, set_msrs, snapshot};

/// Where KVM puts the task state segment that Intel CPUs without unrestricted guests need: three pages in
/// the MMIO gap, below the 4 GiB boundary (`KVM_SET_TSS_ADDR`).
pub(crate) const TSS_ADDRESS: usize = 0xfffb_d000;

/// The CPU's time-stamp counter: goes up steadily, at a rate of its own.
pub(crate) fn ticks() -> u64 {
    // SAFETY: the instruction is part of x86-64, and reads a counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// What KVM has had since Linux 5.10, whatever the CPU: who needs a kernel's later behaviour asks for this.
pub(crate) const SINCE_5_10: kvm_ioctls::Cap = kvm_ioctls::Cap::X86UserSpaceMsr;
