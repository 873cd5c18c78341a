//! A vCPU's thread: `KVM_RUN`, and the few exits left to answer.
//!
//! The thread makes three system calls in steady state: the ioctl on its own vCPU, a write to an eventfd
//! where a device raises its line, and taking a pending kick. It never touches the embedder's files, and a
//! crash's registers are read by whoever joins it: its jail has no calls for either.

use std::sync::Arc;

use firecrest_seccomp::Work;
use kvm_bindings::{KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::error::WaitError;
use crate::exit::{Crash, CrashReason, Exit, Registers, ResetCause};
use crate::lifecycle::{Next, Outcome};
use crate::platform::{Ending, Platform};
use crate::shared::Shared;
use crate::timeline::{Phase, Timeline};
use crate::x86_64;

/// `suberror` of an instruction that KVM could not emulate, and the flag that says its bytes are there.
const INTERNAL_ERROR_EMULATION: u32 = kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
const FLAG_INSTRUCTION_BYTES: u64 = kvm_bindings::KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES as u64;

/// One vCPU, to be run by a thread of its own.
pub(crate) struct Vcpu {
    index: u8,
    fd: VcpuFd,
    platform: Arc<Platform>,
    shared: Arc<Shared>,
    /// Until the first exit.
    timeline: Option<Timeline>,
}

/// What an exit leads to.
enum Step {
    /// Straight back into the guest.
    Run,
    /// Through the checkpoint.
    Check,
    End(Ending),
}

impl Vcpu {
    pub(crate) fn new(
        index: u8,
        fd: VcpuFd,
        platform: Arc<Platform>,
        shared: Arc<Shared>,
        timeline: Option<Timeline>,
    ) -> Self {
        Self { index, fd, platform, shared, timeline }
    }

    pub(crate) fn index(&self) -> u8 {
        self.index
    }

    pub(crate) fn thread_name(&self) -> String {
        format!("fc-vcpu{}", self.index)
    }

    /// The registers, and the guest physical address of the instruction they are at, once the run has ended.
    pub(crate) fn snapshot(&self) -> (Option<Registers>, Option<u64>) {
        x86_64::snapshot(&self.fd)
    }
}

impl Work for Vcpu {
    fn prepare(&mut self) {
        if let Err(error) = self.shared.lifecycle().enroll(usize::from(self.index)) {
            let (thread, message) = (self.thread_name(), format!("it cannot be kicked: {error}"));
            self.shared.end(Err(WaitError::Failed { thread, message }));
        }
    }

    /// Runs the guest until its run ends.
    fn run(&mut self) {
        if let Some(timeline) = &self.timeline {
            timeline.mark(Phase::Entering);
        }
        if self.index == 0 {
            self.shared.lifecycle().enter();
        }
        loop {
            self.shared.lifecycle().pending().take();
            // A guest that was paused is told, so that its watchdogs do not mistake that for a stall. KVM
            // refuses where the guest does not use kvm-clock, and then there is nobody to tell.
            let next = self.shared.lifecycle().checkpoint(|| {
                let _: Result<(), _> = self.fd.kvmclock_ctrl();
            });
            if next == Next::Leave {
                break;
            }
            if let Some(ending) = self.run_until_kicked() {
                let outcome = self.outcome(ending);
                self.shared.end(outcome);
                break;
            }
        }
        // What KVM has kept of this vCPU's is not to be lost.
        self.platform.collect(false);
    }
}

impl Vcpu {
    /// Runs the guest until a kick (`None`) or its end.
    fn run_until_kicked(&mut self) -> Option<Ending> {
        loop {
            match self.step() {
                Step::Run => {}
                Step::Check => return None,
                Step::End(ending) => return Some(ending),
            }
        }
    }

    /// One `KVM_RUN`, and its exit answered.
    fn step(&mut self) -> Step {
        let run: *const kvm_run = self.fd.get_kvm_run();
        let platform = &self.platform;
        let exit = self.fd.run();
        self.shared.count_exit(self.index);
        if let Some(timeline) = self.timeline.take() {
            timeline.mark(Phase::FirstExit);
        }
        let ending = match exit {
            Ok(VcpuExit::IoOut(port, data)) => platform.port_write(port, io_size(run), data),
            Ok(VcpuExit::IoIn(port, data)) => {
                platform.port_read(port, io_size(run), data);
                None
            }
            Ok(VcpuExit::MmioWrite(address, data)) => platform.mmio_write(address, data),
            Ok(VcpuExit::MmioRead(address, data)) => {
                platform.mmio_read(address, data);
                None
            }
            Ok(VcpuExit::Intr) => return Step::Check,
            Ok(VcpuExit::Shutdown) => Some(Ending::Exit(Exit::Reset(ResetCause::TripleFault))),
            Ok(VcpuExit::SystemEvent(kind, _)) => Some(system_event(kind)),
            Ok(VcpuExit::InternalError) => Some(Ending::Crash(internal_error(run))),
            Ok(VcpuExit::FailEntry(hardware_reason, cpu)) => {
                Some(Ending::Crash(CrashReason::FailedEntry { hardware_reason, cpu }))
            }
            Ok(VcpuExit::MemoryFault { gpa, .. }) => {
                Some(Ending::Crash(CrashReason::MemoryFault { guest_addr: Some(gpa) }))
            }
            Ok(_) => Some(Ending::Crash(CrashReason::UnknownExit(self.fd.get_kvm_run().exit_reason))),
            Err(error) => match error.errno() {
                // A kick; or, for a vCPU that waits for its SIPI, something that was not it.
                libc::EINTR | libc::EAGAIN => return Step::Check,
                libc::EFAULT | libc::EHWPOISON => {
                    Some(Ending::Crash(CrashReason::MemoryFault { guest_addr: None }))
                }
                errno => Some(Ending::Crash(CrashReason::Run { errno })),
            },
        };
        self.shared.serial().wait_for_room();
        ending.map_or(Step::Run, Step::End)
    }

    fn outcome(&mut self, ending: Ending) -> Outcome {
        let reason = match ending {
            Ending::Exit(exit) => return Ok(exit),
            Ending::Crash(reason) => reason,
        };
        let instruction = match &reason {
            CrashReason::Internal { suberror: INTERNAL_ERROR_EMULATION, .. } => {
                emulated_instruction(self.fd.get_kvm_run())
            }
            _ => Vec::new(),
        };
        Ok(Exit::Crash(Box::new(Crash {
            vcpu: self.index,
            reason,
            registers: None,
            instruction,
            instruction_address: None,
            hint: None,
        })))
    }
}

/// Bytes in each access of a `KVM_EXIT_IO`, which may hold several.
fn io_size(run: *const kvm_run) -> usize {
    // SAFETY: `run` is the vCPU's mapped kvm_run page, which lives as long as the vCPU; it is the kernel's to
    // write only inside KVM_RUN. The exit reason just returned says that `io` is the member in use, and any
    // byte is a valid u8. The data of the exit lies outside of the structure.
    usize::from(unsafe { (&raw const (*run).__bindgen_anon_1.io.size).read() })
}

fn system_event(kind: u32) -> Ending {
    match kind {
        KVM_SYSTEM_EVENT_SHUTDOWN => Ending::Exit(Exit::PowerOff),
        KVM_SYSTEM_EVENT_RESET => Ending::Exit(Exit::Reset(ResetCause::TripleFault)),
        KVM_SYSTEM_EVENT_CRASH => Ending::Exit(Exit::GuestPanic),
        _ => Ending::Crash(CrashReason::UnknownExit(kvm_bindings::KVM_EXIT_SYSTEM_EVENT)),
    }
}

fn internal_error(run: *const kvm_run) -> CrashReason {
    // SAFETY: as in `io_size`, for the member `internal`, all of whose fields are integers.
    let internal = unsafe { (&raw const (*run).__bindgen_anon_1.internal).read() };
    let count = usize::try_from(internal.ndata).unwrap_or(usize::MAX);
    CrashReason::Internal {
        suberror: internal.suberror,
        data: internal.data.iter().take(count).copied().collect(),
    }
}

/// The bytes KVM recorded of an instruction it could not emulate.
fn emulated_instruction(run: &kvm_run) -> Vec<u8> {
    // SAFETY: as in `io_size`, for the member `emulation_failure`, all of whose fields are integers.
    let (words, flags, instruction) = unsafe {
        let failure = &run.__bindgen_anon_1.emulation_failure;
        (failure.ndata, failure.flags, failure.__bindgen_anon_1.__bindgen_anon_1)
    };
    if words == 0 || flags & FLAG_INSTRUCTION_BYTES == 0 {
        return Vec::new();
    }
    instruction.insn_bytes.iter().take(usize::from(instruction.insn_size)).copied().collect()
}
