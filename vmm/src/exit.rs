//! How a guest's run ended.

use std::fmt;

/// How a guest's run ended. Its [`Display`](fmt::Display) says it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// The guest powered itself off (ACPI S5).
    PowerOff,
    /// The guest asked for a reset.
    Reset(ResetCause),
    /// The guest's kernel reported that it has panicked (pvpanic).
    GuestPanic,
    /// The embedder ended the run, with a [`StopHandle`](crate::StopHandle) or by dropping the VM.
    Stopped,
    /// KVM could not go on running the guest.
    Crash(Box<Crash>),
}

/// The way by which a guest asked for a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetCause {
    /// The keyboard controller's reset line (port 0x64).
    Keyboard,
    /// The ACPI reset register.
    Acpi,
    /// A triple fault: meant as a reset by some guests, the last word of a broken one by others.
    TripleFault,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the guest powered off"),
            Self::Reset(ResetCause::Keyboard) => f.write_str("the guest reset itself (keyboard controller)"),
            Self::Reset(ResetCause::Acpi) => f.write_str("the guest reset itself (ACPI reset register)"),
            Self::Reset(ResetCause::TripleFault) => f.write_str("the guest reset itself (triple fault)"),
            Self::GuestPanic => f.write_str("the guest's kernel panicked"),
            Self::Stopped => f.write_str("the guest was stopped"),
            Self::Crash(crash) => write!(f, "the guest crashed: {crash}"),
        }
    }
}

/// What KVM said when it could not go on, and where the vCPU was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Crash {
    /// The vCPU it happened on.
    pub vcpu: u8,
    /// What KVM said.
    pub reason: CrashReason,
    /// The vCPU's registers, where KVM still gave them.
    pub registers: Option<Registers>,
    /// The instruction at `rip`, up to 15 bytes: KVM's own record of it, or what guest memory holds there.
    pub instruction: Vec<u8>,
    /// The guest physical address that `rip` leads to, where it leads to one.
    pub instruction_address: Option<u64>,
    /// What this host's KVM cannot do at all, where that may be the reason.
    pub hint: Option<&'static str>,
}

/// What KVM said when it could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrashReason {
    /// `KVM_EXIT_INTERNAL_ERROR`; suberror 1 is an instruction that KVM cannot emulate.
    Internal {
        /// KVM's suberror.
        suberror: u32,
        /// The data that came with it.
        data: Vec<u64>,
    },
    /// `KVM_EXIT_FAIL_ENTRY`: the CPU refused the guest's state.
    FailedEntry {
        /// The hardware's own reason, as KVM passes it on.
        hardware_reason: u64,
        /// The physical CPU it happened on.
        cpu: u32,
    },
    /// Guest memory that is not there: a page of a kernel or initrd file that was truncated under the
    /// running guest, or bad memory of the host.
    MemoryFault {
        /// Guest physical address, where KVM told it.
        guest_addr: Option<u64>,
    },
    /// `KVM_RUN` failed with this `errno`.
    Run {
        /// The error number.
        errno: i32,
    },
    /// An exit that no guest should be able to cause; the number is `kvm_run.exit_reason`.
    UnknownExit(u32),
    /// Interrupt routes that the host did not take; the text is its reason.
    Routing(String),
}

impl fmt::Display for CrashReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internal { suberror, data } => {
                let meaning = match suberror {
                    1 => " (an instruction it cannot emulate)",
                    2 => " (an exit while an event was being delivered)",
                    3 => " (delivery of an event)",
                    4 => " (an exit reason it does not know)",
                    _ => "",
                };
                write!(f, "KVM internal error, suberror {suberror}{meaning}")?;
                data.iter().try_for_each(|word| write!(f, " {word:#x}"))
            }
            Self::FailedEntry { hardware_reason, cpu } => {
                write!(f, "failed entry, hardware reason {hardware_reason:#x} on CPU {cpu}")
            }
            Self::MemoryFault { guest_addr: Some(addr) } => {
                write!(f, "guest memory at {addr:#x} is gone (was its file truncated?)")
            }
            Self::MemoryFault { guest_addr: None } => {
                f.write_str("guest memory is gone (was the kernel's or initrd's file truncated?)")
            }
            Self::Run { errno } => write!(f, "KVM_RUN: {}", std::io::Error::from_raw_os_error(*errno)),
            Self::UnknownExit(reason) => write!(f, "unknown exit reason {reason}"),
            Self::Routing(text) => write!(f, "interrupt routes refused: {text}"),
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on vCPU {}", self.reason, self.vcpu)?;
        if !self.instruction.is_empty() {
            f.write_str("\n  instruction:")?;
            self.instruction.iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
        }
        if let Some(registers) = &self.registers {
            write!(f, "\n{registers}")?;
        }
        if let Some(hint) = self.hint {
            write!(f, "\n  {hint}")?;
        }
        Ok(())
    }
}

/// A vCPU's registers, for a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each field is the register of its name")]
pub struct Registers {
    pub rip: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub cs: u16,
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = self;
        writeln!(f, "  rip {:016x} rflags {:08x} cs {:04x} efer {:04x}", r.rip, r.rflags, r.cs, r.efer)?;
        writeln!(f, "  cr0 {:08x} cr2 {:016x} cr3 {:016x} cr4 {:08x}", r.cr0, r.cr2, r.cr3, r.cr4)?;
        writeln!(f, "  rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", r.rax, r.rbx, r.rcx, r.rdx)?;
        writeln!(f, "  rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}", r.rsi, r.rdi, r.rbp, r.rsp)?;
        writeln!(f, "  r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}", r.r8, r.r9, r.r10, r.r11)?;
        write!(f, "  r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}", r.r12, r.r13, r.r14, r.r15)
    }
}

#[cfg(test)]
#[path = "exit_tests.rs"]
mod tests;
