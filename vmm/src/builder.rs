//! From a description to a VM that is ready to start.
//!
//! The description is checked and planned before anything of the host is used. What is then made is owned
//! from the moment it exists, so that giving up half-way leaves nothing behind.
//!
//! The order in which KVM is asked matters: memory slots, then the split irqchip, then vCPUs. In this order
//! no ioctl waits for an SRCU grace period; see ARCHITECTURE.md.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use firecrest_boot::{Machine, Plan, Request, layout, plan};
use firecrest_devices::block::Block;
use firecrest_devices::net::Net;
use firecrest_devices::virtio::Device;
use firecrest_devices::vsock::Vsock;
use firecrest_seccomp::Jail;
use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use crate::coalesced::Ring;
use crate::console::{Console, Port};
use crate::devices::{self, DeviceSet, RegisterAccess};
use crate::error::BuildError;
use crate::interrupt::{IrqLine, Routes};
use crate::jails::Jails;
use crate::kernel::Kernel;
use crate::kvm::{self, KvmError};
use crate::lifecycle::Lifecycle;
use crate::memory::{Memory, Ram};
use crate::platform::{Platform, kept_registers};
use crate::shared::Shared;
use crate::timeline::{Phase, Timeline, mark};
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use crate::x86_64;

/// Guest memory unless the builder is told otherwise, in MiB.
const DEFAULT_MEMORY_MIB: u64 = 128;

/// Describes a VM. Made by [`Vm::builder`].
#[derive(Debug)]
pub struct Builder {
    memory: Memory,
    vcpus: usize,
    kernel: Option<Kernel>,
    console: Console,
    devices: Vec<Spec>,
    register_access: RegisterAccess,
    jail: Jail,
    kick_signal: i32,
    kvm_device: PathBuf,
    timeline: Option<Timeline>,
}

/// A device that was asked for.
#[derive(Debug)]
enum Spec {
    Block(Block),
    Net(Net),
    Vsock(Vsock),
}

impl Spec {
    fn build(self) -> Result<Device, BuildError> {
        Ok(match self {
            Self::Block(block) => block.build()?,
            Self::Net(net) => net.build()?,
            Self::Vsock(vsock) => vsock.build()?,
        })
    }
}

impl Vm {
    /// Starts describing a VM.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            memory: Memory::mib(DEFAULT_MEMORY_MIB),
            vcpus: 1,
            kernel: None,
            console: Console::discard(),
            devices: Vec::new(),
            register_access: RegisterAccess::default(),
            jail: Jail::default(),
            kick_signal: libc::SIGSTKFLT,
            kvm_device: PathBuf::from(kvm::DEVICE),
            timeline: None,
        }
    }
}

impl Builder {
    /// Sets the guest's memory in MiB; 128 unless set.
    #[must_use]
    pub fn memory_mib(self, mib: u64) -> Self {
        self.memory(Memory::mib(mib))
    }

    /// Sets the guest's memory and what backs it.
    #[must_use]
    pub fn memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// Sets the number of vCPUs, 1 to 64; 1 unless set.
    #[must_use]
    pub fn vcpus(mut self, count: usize) -> Self {
        self.vcpus = count;
        self
    }

    /// Sets the kernel to boot.
    #[must_use]
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// Sets where the serial console leads; nowhere unless set.
    #[must_use]
    pub fn console(mut self, console: Console) -> Self {
        self.console = console;
        self
    }

    /// Adds a disk. Devices appear to the guest in the order in which they are added.
    #[must_use]
    pub fn block(self, block: Block) -> Self {
        self.device(Spec::Block(block))
    }

    /// Adds a network card.
    #[must_use]
    pub fn net(self, net: Net) -> Self {
        self.device(Spec::Net(net))
    }

    /// Adds a socket device, which connects programs of the guest and of the host.
    #[must_use]
    pub fn vsock(self, vsock: Vsock) -> Self {
        self.device(Spec::Vsock(vsock))
    }

    fn device(mut self, spec: Spec) -> Self {
        self.devices.push(spec);
        self
    }

    /// Sets how accesses to registers are served; [`RegisterAccess::Mapped`] unless set.
    #[must_use]
    pub fn register_access(mut self, access: RegisterAccess) -> Self {
        self.register_access = access;
        self
    }

    /// Sets what becomes of a thread of the VM that calls what it may not; [`Jail::enforce`] unless set.
    #[must_use]
    pub fn jail(mut self, jail: Jail) -> Self {
        self.jail = jail;
        self
    }

    /// Sets the signal that interrupts a vCPU's thread; `SIGSTKFLT` unless set, which Linux has and nobody uses.
    ///
    /// It is only ever sent to threads of the VM, which block it; the process's handler for it, if there is
    /// one, stays as it is. One that somebody sends to the process as a whole may be taken by a vCPU's thread
    /// and go no further: do not give a signal that the process itself waits for. A real-time signal can be
    /// refused by the host when its user has too many of them pending (`RLIMIT_SIGPENDING`), and the kick is
    /// then lost.
    #[must_use]
    pub fn kick_signal(mut self, signal: i32) -> Self {
        self.kick_signal = signal;
        self
    }

    /// Sets the KVM device's path; `/dev/kvm` unless set.
    #[must_use]
    pub fn kvm_device(mut self, path: impl Into<PathBuf>) -> Self {
        self.kvm_device = path.into();
        self
    }

    /// Has building and starting leave marks on a timeline; they leave none unless this is set.
    #[must_use]
    pub fn timeline(mut self, timeline: &Timeline) -> Self {
        self.timeline = Some(timeline.clone());
        self
    }

    /// Checks the description and builds the VM, without running any of it.
    ///
    /// # Errors
    /// What in the description cannot be, or what the host cannot give, by name and value. Nothing is left
    /// behind.
    pub fn build(self) -> Result<Vm, BuildError> {
        let timeline = self.timeline;
        let mark = |phase| mark(timeline.as_ref(), phase);
        let kernel = self.kernel.ok_or(BuildError::NoKernel)?;
        let vcpus = vcpu_count(self.vcpus, usize::from(layout::MAX_VCPUS))?;
        check_kick_signal(self.kick_signal)?;
        let ranges = self.memory.layout()?;
        let count = self.devices.len();
        if count > layout::MAX_VIRTIO_DEVICES as usize {
            return Err(BuildError::Devices { count });
        }
        let plan = plan(&Request {
            image: &kernel.source.image,
            protocol: kernel.protocol,
            initrd_len: kernel.initrd.as_ref().map(|initrd| initrd.len),
            cmdline: &kernel.cmdline,
            machine: Machine { ram: &ranges, vcpus, devices: &devices::places(count) },
        })?;
        let specs = self.devices.into_iter();
        let devices = specs.map(Spec::build).collect::<Result<Vec<_>, _>>()?;
        mark(Phase::Planned);

        let kvm = kvm::open(&self.kvm_device)?;
        vcpu_count(self.vcpus, kvm.get_max_vcpus())?;
        mark(Phase::KvmOpened);
        let ram = Ram::map(self.memory, &ranges, count != 0)?;
        mark(Phase::MemoryMapped);
        load(&ram, &plan, &kernel)?;
        mark(Phase::Loaded);
        let pages = devices::pages(count)?;
        let is_mapped = self.register_access == RegisterAccess::Mapped;
        let fd = Arc::new(create_vm(&kvm, &ram, |vm, slot| {
            // A slot takes time: a guest without devices, and without a driver for the console, has no use for it.
            let has_driver = self.console.has_output() && kernel.source.image.is_linux();
            let is_needed = is_mapped && (count != 0 || has_driver);
            if is_needed { devices::map(vm, &pages, slot) } else { Ok(()) }
        })?);

        mark(Phase::VmCreated);
        let line = IrqLine::new(&fd, layout::SERIAL_GSI)?;
        let page = pages.page(0).ok_or(BuildError::Devices { count })?;
        let serial = Arc::new(Port::new(line, page, !self.console.has_output())?);
        let lifecycle = Lifecycle::new(usize::from(vcpus), self.kick_signal)
            .map_err(|source| BuildError::Host { what: "the vCPUs' kicks", source })?;
        let shared = Arc::new(Shared::new(lifecycle, Arc::clone(&serial), usize::from(vcpus)));
        let vcpus: Vec<_> = create_vcpus(&kvm, &fd, vcpus, &plan, self.kick_signal)?.collect();
        let ring = match vcpus.first() {
            Some((_, vcpu)) if is_mapped && Ring::is_offered(&kvm) => {
                Some(Ring::new(&fd, vcpu, &kept_registers())?)
            }
            _ => None,
        };
        mark(Phase::VcpusCreated);
        // Doorbells last: each goes on KVM's I/O bus, and a slot or vCPU made after it would wait.
        let (set, device_threads) = DeviceSet::new(&fd, devices, pages, self.register_access, ram.memory())?;
        let devices = Arc::new(set);
        let routes = Routes(Arc::clone(&fd));
        let platform = Arc::new(Platform::new(serial, routes, ring, Arc::clone(&devices)));
        let vcpus = vcpus
            .into_iter()
            .map(|(index, fd)| {
                Vcpu::new(index, fd, Arc::clone(&platform), Arc::clone(&shared), timeline.clone())
            })
            .collect();
        let console = self.console.into_worker(shared.serial(), move |rested| platform.collect(rested))?;
        let jails = Jails::new(self.jail, shared.lifecycle().pending().as_raw_fd())?;
        mark(Phase::Built);
        Ok(Vm { shared, vcpus, console, device_threads, jails, fd, devices, ram })
    }
}

fn vcpu_count(count: usize, max: usize) -> Result<u8, BuildError> {
    let max = max.min(usize::from(layout::MAX_VCPUS));
    match u8::try_from(count) {
        Ok(vcpus @ 1..) if count <= max => Ok(vcpus),
        _ => Err(BuildError::Vcpus { count, max }),
    }
}

fn check_kick_signal(signal: i32) -> Result<(), BuildError> {
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    let usable =
        real_time.contains(&signal) || [libc::SIGUSR1, libc::SIGUSR2, libc::SIGSTKFLT].contains(&signal);
    if usable { Ok(()) } else { Err(BuildError::KickSignal { signal }) }
}

fn load(ram: &Ram, plan: &Plan, kernel: &Kernel) -> Result<(), BuildError> {
    for segment in &plan.segments {
        ram.load(&kernel.source.file, segment.file_offset, segment.guest_addr, segment.file_len)?;
    }
    if let (Some(initrd), Some(address)) = (&kernel.initrd, plan.initrd) {
        ram.load(&initrd.file, 0, address, initrd.len)?;
    }
    for blob in &plan.blobs {
        ram.write(blob.guest_addr, &blob.bytes)?;
    }
    Ok(())
}

/// Makes the VM with its memory; `map_more` adds what else is mapped, from the slot number it is given on.
fn create_vm(
    kvm: &Kvm,
    ram: &Ram,
    map_more: impl FnOnce(&VmFd, u32) -> Result<(), KvmError>,
) -> Result<VmFd, KvmError> {
    let vm = kvm.create_vm().map_err(KvmError::operation("KVM_CREATE_VM"))?;
    vm.set_tss_address(x86_64::TSS_ADDRESS).map_err(KvmError::operation("KVM_SET_TSS_ADDR"))?;
    let mut slots = 0..;
    for ((guest_phys_addr, memory_size, userspace_addr), slot) in ram.slots().zip(slots.by_ref()) {
        let region =
            kvm_userspace_memory_region { slot, guest_phys_addr, memory_size, userspace_addr, flags: 0 };
        // SAFETY: the region is mapped, is only ever accessed through volatile accessors or by the kernel,
        // and is unmapped after the VM is gone (see the order of the fields of `Vm` and `Running`).
        unsafe { vm.set_user_memory_region(region) }
            .map_err(KvmError::operation("KVM_SET_USER_MEMORY_REGION"))?;
    }
    map_more(&vm, slots.next().unwrap_or(u32::MAX))?;
    let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
    let gsis = layout::IOAPIC_GSI_BASE.saturating_add(layout::IOAPIC_PINS);
    split.args = [u64::from(gsis), 0, 0, 0];
    vm.enable_cap(&split).map_err(KvmError::operation("KVM_CAP_SPLIT_IRQCHIP"))?;
    Ok(vm)
}

fn create_vcpus(
    kvm: &Kvm,
    vm: &VmFd,
    count: u8,
    plan: &Plan,
    kick_signal: i32,
) -> Result<impl Iterator<Item = (u8, VcpuFd)>, KvmError> {
    let mut fds = Vec::with_capacity(usize::from(count));
    for index in 0..count {
        fds.push(vm.create_vcpu(u64::from(index)).map_err(KvmError::operation("KVM_CREATE_VCPU"))?);
    }
    // KVM refuses where the host's TSC is not stable; the guest then has kvm-clock's word alone.
    let tsc_khz = fds.first().and_then(|fd| fd.get_tsc_khz().ok());
    let cpuid = x86_64::Template::new(kvm, count, tsc_khz)?;
    for (index, fd) in (0..count).zip(&fds) {
        cpuid.apply(fd, index)?;
        x86_64::set_msrs(fd)?;
        if index == 0 {
            x86_64::set_boot_state(fd, &plan.boot_cpu)?;
        }
        kvm::open_signal_while_running(fd, kick_signal)?;
    }
    Ok((0..count).zip(fds))
}
