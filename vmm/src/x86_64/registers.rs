//! The boot CPU's first state into KVM, and a vCPU's last state out of it.

use firecrest_boot::{CpuState, SegmentState};
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use crate::exit::Registers;
use crate::kvm::KvmError;

/// `IA32_MISC_ENABLE`, and its bit for fast string operations.
const MSR_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// `IA32_MTRR_DEF_TYPE`: MTRRs on, and all memory write-back.
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;

/// Puts the boot CPU into the state in which it enters the kernel. All other vCPUs start as KVM made them:
/// waiting for INIT and SIPI, which set their state. So does its local APIC: what firmware leaves in there a kernel sets
/// itself, and it would cost two calls of KVM.
pub(crate) fn set_boot_state(vcpu: &VcpuFd, state: &CpuState) -> Result<(), KvmError> {
    set_sregs(vcpu, state)?;
    let regs = kvm_regs {
        rip: state.rip,
        rsp: state.rsp,
        rsi: state.rsi,
        rbx: state.rbx,
        rflags: state.rflags,
        ..Default::default()
    };
    vcpu.set_regs(&regs).map_err(KvmError::operation("KVM_SET_REGS"))
}

/// Sets the MSRs that firmware would have left the same on every CPU, and that INIT does not change.
pub(crate) fn set_msrs(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let entries = [entry(MSR_MISC_ENABLE, FAST_STRINGS), entry(MSR_MTRR_DEF_TYPE, MTRR_ON_WRITE_BACK)];
    let refused = |errno| KvmError::operation("KVM_SET_MSRS")(kvm_ioctls::Error::new(errno));
    let msrs = Msrs::from_entries(&entries).map_err(|_| refused(libc::E2BIG))?;
    let written = vcpu.set_msrs(&msrs).map_err(KvmError::operation("KVM_SET_MSRS"))?;
    if written == entries.len() { Ok(()) } else { Err(refused(libc::EINVAL)) }
}

fn set_sregs(vcpu: &VcpuFd, state: &CpuState) -> Result<(), KvmError> {
    let mut sregs = vcpu.get_sregs().map_err(KvmError::operation("KVM_GET_SREGS"))?;
    sregs.cs = segment(&state.cs);
    let data = segment(&state.ds);
    for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *register = data;
    }
    sregs.tr = segment(&state.tss);
    (sregs.gdt.base, sregs.gdt.limit) = (state.gdt.base, state.gdt.limit);
    (sregs.idt.base, sregs.idt.limit) = (state.idt.base, state.idt.limit);
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (state.cr0, state.cr3, state.cr4, state.efer);
    vcpu.set_sregs(&sregs).map_err(KvmError::operation("KVM_SET_SREGS"))
}

fn segment(state: &SegmentState) -> kvm_segment {
    kvm_segment {
        base: state.base,
        limit: state.limit,
        selector: state.selector,
        type_: state.type_,
        present: state.present,
        dpl: state.dpl,
        db: state.db,
        s: state.s,
        l: state.l,
        g: state.g,
        avl: state.avl,
        unusable: state.unusable,
        padding: 0,
    }
}

/// A vCPU's registers for a report, and the guest physical address of the instruction it is at, where KVM still
/// gives them.
pub(crate) fn snapshot(vcpu: &VcpuFd) -> (Option<Registers>, Option<u64>) {
    let (Ok(regs), Ok(sregs)) = (vcpu.get_regs(), vcpu.get_sregs()) else { return (None, None) };
    // In long mode the segment's base counts as 0, and is 0 in KVM's state as in ours.
    let linear = sregs.cs.base.wrapping_add(regs.rip);
    let translation = vcpu.translate_gva(linear).ok().filter(|translation| translation.valid != 0);
    let registers = Registers {
        rip: regs.rip,
        rflags: regs.rflags,
        rsp: regs.rsp,
        rbp: regs.rbp,
        rax: regs.rax,
        rbx: regs.rbx,
        rcx: regs.rcx,
        rdx: regs.rdx,
        rsi: regs.rsi,
        rdi: regs.rdi,
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        cr0: sregs.cr0,
        cr2: sregs.cr2,
        cr3: sregs.cr3,
        cr4: sregs.cr4,
        efer: sregs.efer,
        cs: sregs.cs.selector,
    };
    (Some(registers), translation.map(|translation| translation.physical_address))
}
