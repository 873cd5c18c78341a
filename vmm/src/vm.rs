//! A built VM, a running one, and the handles to them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use firecrest_devices::virtio::Worker;
use firecrest_seccomp::{End, Filter, JailError, Role, Work, spawn};
use kvm_ioctls::VmFd;

use crate::console::{self, ConsoleInput, ConsoleThread, THREAD_NAME};
use crate::devices::{DeviceSet, DeviceThread, Stats};
use crate::error::{StartError, StateError, WaitError};
use crate::exit::{Crash, Exit, Registers};
use crate::host::Flavour;
use crate::jails::{Jails, role};
use crate::memory::Ram;
use crate::shared::Shared;
use crate::vcpu::Vcpu;

/// Length of an x86 instruction at most, in bytes.
const LONGEST_INSTRUCTION: usize = 15;

/// A VM that is ready to start: everything that can fail on the caller's input has succeeded.
pub struct Vm {
    pub(crate) shared: Arc<Shared>,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) console: Option<ConsoleThread>,
    pub(crate) device_threads: Vec<DeviceThread>,
    pub(crate) jails: Jails,
    /// Before `ram`, as fields are dropped in order: KVM lets go of the memory before it is unmapped.
    pub(crate) fd: Arc<VmFd>,
    pub(crate) devices: Arc<DeviceSet>,
    pub(crate) ram: Ram,
}

impl Vm {
    /// Starts the vCPUs, each on a thread of its own, and returns once the first is on its way into the guest, without
    /// waiting for anything that the guest does.
    ///
    /// # Errors
    /// A thread could not be started; those that had been are stopped again.
    pub fn start(self) -> Result<Running, StartError> {
        let Self { shared, vcpus, console, device_threads, jails, fd, devices, ram } = self;
        let running = Running { shared, threads: Mutex::new(Threads::default()), _fd: fd, devices, ram };
        // vCPU 0 first: it is in the guest before the devices' threads take time and locks of the process.
        let count = vcpus.len();
        for (started, vcpu) in vcpus.into_iter().enumerate() {
            if let Err(error) = running.start_vcpu(vcpu, jails.vcpu()) {
                // Those that never started will not retire by themselves.
                (started..count).for_each(|_| running.shared.lifecycle().retire());
                return Err(error);
            }
        }
        running.shared.lifecycle().wait_for_entry();
        for DeviceThread { name, worker } in device_threads {
            let jails = jails.clone();
            let filter = move |device: &mut DeviceWork| jails.of(role(device.worker.job()));
            let device = DeviceWork { worker, name: name.clone(), shared: Arc::clone(&running.shared) };
            let report = running.report(&name);
            let thread = running.spawn(&name, filter, device, report)?;
            running.threads().devices.push(thread);
        }
        if let Some(ConsoleThread { worker, jailed }) = console {
            let filter = move |_: &mut _| if jailed { jails.of(Role::Console) } else { Ok(Filter::none()) };
            let report = running.report(THREAD_NAME);
            let thread = running.spawn(THREAD_NAME, filter, worker, report)?;
            running.threads().console = Some(thread);
        }
        Ok(running)
    }
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm").field("vcpus", &self.vcpus.len()).field("ram", &self.ram).finish_non_exhaustive()
    }
}

/// A VM whose guest runs, or has run. Dropping it stops the guest and joins every thread of the VM.
pub struct Running {
    shared: Arc<Shared>,
    threads: Mutex<Threads>,
    /// Before `ram`, see [`Vm`].
    _fd: Arc<VmFd>,
    devices: Arc<DeviceSet>,
    ram: Ram,
}

#[derive(Default)]
struct Threads {
    vcpus: Vec<JoinHandle<Vcpu>>,
    devices: Vec<JoinHandle<DeviceWork>>,
    console: Option<JoinHandle<console::Worker>>,
    /// Of each vCPU whose thread has ended, by index: its state then, where the guest crashed.
    crashed: BTreeMap<u8, (Option<Registers>, Option<u64>)>,
}

/// A device's thread's work.
struct DeviceWork {
    worker: Worker,
    name: String,
    shared: Arc<Shared>,
}

impl Work for DeviceWork {
    fn prepare(&mut self) {
        self.worker.prepare();
    }

    fn heap(&mut self) -> usize {
        self.worker.heap()
    }

    fn run(&mut self) {
        if let Err(error) = self.worker.run() {
            let (thread, message) = (self.name.clone(), error.to_string());
            self.shared.end(Err(WaitError::Failed { thread, message }));
        }
    }
}

impl Running {
    /// Waits for the end of the guest's run, and says how it ended. All threads of the VM have ended then,
    /// and the console's output is delivered. Can be called again, from any thread.
    ///
    /// # Errors
    /// The monitor itself failed.
    pub fn wait(&self) -> Result<Exit, WaitError> {
        let outcome = self.shared.lifecycle().wait();
        self.settle();
        outcome.map(|exit| match exit {
            Exit::Crash(crash) => Exit::Crash(Box::new(self.explain(*crash))),
            exit => exit,
        })
    }

    /// Stops all vCPUs where they are, and returns when they have. Pausing twice is pausing once.
    ///
    /// Devices finish what they have been given, and a network card goes on to fill the buffers it has.
    ///
    /// The guest's clocks go on meanwhile, as those of a machine whose operator stopped the CPUs would; a
    /// guest with kvm-clock is told that it was paused.
    ///
    /// # Errors
    /// [`StateError::Ended`].
    pub fn pause(&self) -> Result<(), StateError> {
        if self.shared.pause() { Ok(()) } else { Err(StateError::Ended) }
    }

    /// Lets the vCPUs go on.
    ///
    /// # Errors
    /// [`StateError::Ended`].
    pub fn resume(&self) -> Result<(), StateError> {
        if self.shared.resume() { Ok(()) } else { Err(StateError::Ended) }
    }

    /// A handle that ends the run, for any thread.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle { shared: Arc::clone(&self.shared) }
    }

    /// The guest's serial input, as a writer for any thread.
    #[must_use]
    pub fn console_input(&self) -> ConsoleInput {
        ConsoleInput(Arc::clone(self.shared.serial()))
    }

    /// Has every device look at its back end again: a disk whose file has another size now takes it on, and
    /// tells the guest.
    pub fn rescan(&self) {
        self.devices.rescan();
    }

    /// What has been counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { exits: self.shared.exits(), devices: self.devices.stats() }
    }

    fn start_vcpu(&self, vcpu: Vcpu, filter: Filter) -> Result<(), StartError> {
        let name = vcpu.thread_name();
        let (shared, failed) = (Arc::clone(&self.shared), self.report(&name));
        let report = move |end| {
            failed(end);
            shared.lifecycle().retire();
        };
        let thread = self.spawn(&name, |_| Ok(filter), vcpu, report)?;
        self.threads().vcpus.push(thread);
        Ok(())
    }

    /// Starts a thread of the VM.
    fn spawn<W: Work>(
        &self,
        name: &str,
        filter: impl FnOnce(&mut W) -> Result<Filter, JailError> + Send + 'static,
        work: W,
        report: impl FnOnce(End) + Send + 'static,
    ) -> Result<JoinHandle<W>, StartError> {
        spawn(name, filter, work, report).map_err(|source| StartError { thread: name.to_owned(), source })
    }

    /// What the end of a thread means to the run: nothing, unless it had no good one.
    fn report(&self, name: &str) -> impl FnOnce(End) + Send + use<> {
        let (shared, thread) = (Arc::clone(&self.shared), name.to_owned());
        move |end| match end {
            End::Returned => {}
            End::Panicked(message) => shared.end(Err(WaitError::Panicked { thread, message })),
            End::NotJailed(message) => shared.end(Err(WaitError::NotJailed { thread, message })),
        }
    }

    /// After the end of the run: joins the vCPUs' threads, and then the devices' and the console's, whose work
    /// is then done.
    fn settle(&self) {
        let mut threads = self.threads();
        // A panic of a thread has been caught and reported: joining cannot fail.
        let vcpus: Vec<_> = threads.vcpus.drain(..).filter_map(|thread| thread.join().ok()).collect();
        if matches!(self.shared.lifecycle().outcome(), Some(Ok(Exit::Crash(_)))) {
            threads.crashed.extend(vcpus.iter().map(|vcpu| (vcpu.index(), vcpu.snapshot())));
        }
        drop(vcpus);
        self.devices.close();
        threads.devices.drain(..).for_each(|thread| drop(thread.join()));
        self.shared.serial().close();
        if let Some(thread) = threads.console.take() {
            drop(thread.join());
        }
    }

    /// Adds to a crash what its vCPU's thread had no call to find out.
    fn explain(&self, mut crash: Crash) -> Crash {
        if let Some((registers, address)) = self.threads().crashed.get(&crash.vcpu) {
            crash.registers.clone_from(registers);
            crash.instruction_address = *address;
        }
        if let (true, Some(address)) = (crash.instruction.is_empty(), crash.instruction_address) {
            crash.instruction = self.ram.peek(address, LONGEST_INSTRUCTION);
        }
        crash.hint = Flavour::detect().hint();
        crash
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.end(Ok(Exit::Stopped));
        self.settle();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("ended", &self.shared.lifecycle().ended()).finish_non_exhaustive()
    }
}

/// Ends a VM's run. Keeping it keeps nothing running: the VM is stopped when its [`Running`] is dropped.
#[derive(Clone)]
pub struct StopHandle {
    shared: Arc<Shared>,
}

impl StopHandle {
    /// Ends the run with [`Exit::Stopped`], unless it has ended; [`Running::wait`] then returns.
    pub fn stop(&self) {
        self.shared.end(Ok(Exit::Stopped));
    }
}

impl fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StopHandle")
    }
}
