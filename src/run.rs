//! `firecrest run`: boots a kernel, with its serial port on standard input and output.

use std::io::{self, IsTerminal};
use std::mem::{self, MaybeUninit};
use std::os::fd::AsFd;
use std::{error::Error, process, ptr, sync::Arc, thread, time::SystemTime};

use firecrest_vmm::{Console, Exit, HugePages, Jail, Kernel, Memory, Protocol, Timeline, Vm};
use lexopt::prelude::*;

use crate::devices;
use crate::lock::{self, Wanted};
use crate::terminal::{self, RawMode};
use crate::text;

/// Reads the options, boots the kernel, waits for its end and says what that was, with an exit status of its own.
pub fn run(args: &mut lexopt::Parser) -> Result<u8, Box<dyn Error>> {
    let (mut path, mut initrd, mut protocol) = (None, None, Protocol::Auto);
    let (mut cmdline, mut memory_mib, mut cpus) = ("console=ttyS0 panic=-1".into(), 128, 1);
    let mut builder = Vm::builder();
    let (mut timeline, mut huge_pages) = (None, HugePages::HostPolicy);
    let (mut lock, mut disks, mut sockets) = (None, 0_u64, Vec::new());
    while let Some(arg) = args.next()? {
        match arg {
            Long("block") => {
                builder = builder.block(devices::block(&args.value()?.string()?)?);
                disks = disks.saturating_add(1);
            }
            Long("net") => builder = builder.net(devices::net(&args.value()?.string()?)?),
            Long("vsock") => {
                let (vsock, path) = devices::vsock(&args.value()?.string()?)?;
                builder = builder.vsock(vsock);
                sockets.push(path);
            }
            Long("lock") => {
                let words = args.optional_value().unwrap_or_default().string()?;
                lock = Some(Wanted::read(&words)?);
            }
            Short('k') | Long("kernel") => path = Some(args.value()?),
            Short('i') | Long("initrd") => initrd = Some(args.value()?),
            Short('c') | Long("cmdline") => cmdline = args.value()?,
            Short('m') | Long("memory") => memory_mib = args.value()?.parse()?,
            Long("huge-pages") => huge_pages = HugePages::Transparent,
            Short('n') | Long("cpus") => cpus = args.value()?.parse()?,
            Short('p') | Long("protocol") => protocol = args.value()?.parse_with(by_name)?,
            Long("jail") => builder = builder.jail(args.value()?.parse_with(jail)?),
            Long("timeline") => timeline = Some((SystemTime::now(), Timeline::new())),
            Short('h') | Long("help") => return crate::say(crate::HELP),
            other => return Err(other.unexpected().into()),
        }
    }
    let path = path.ok_or_else(|| lexopt::Error::from("run needs --kernel FILE"))?;

    let signals = block_signals();
    // Before anything is opened, and again when everything is and no thread has been started.
    let begun = lock.map(|lock| lock.begin(disks, &sockets)).transpose()?;
    let mut kernel = Kernel::open(path)?.cmdline(cmdline.into_encoded_bytes()).protocol(protocol);
    if let Some(initrd) = initrd {
        kernel = kernel.initrd(initrd)?;
    }
    if let Some((_, timeline)) = &timeline {
        builder = builder.timeline(timeline);
    }
    let memory = Memory::mib(memory_mib).huge_pages(huge_pages);
    let builder = builder.memory(memory).vcpus(cpus).kernel(kernel);
    let mut console = Console::to(io::stdout());
    // What comes from a terminal has to be looked at first.
    let is_terminal = io::stdin().is_terminal();
    if !is_terminal {
        console = console.input(io::stdin().as_fd().try_clone_to_owned()?);
    }
    let vm = builder.console(console).build()?;
    begun.map(lock::apply).transpose()?;

    let raw = if is_terminal { RawMode::enter()? } else { None };
    if raw.is_some() {
        eprintln!("firecrest: Ctrl-A x ends the guest");
    }
    let running = Arc::new(vm.start()?);
    let rescanned = Arc::downgrade(&running);
    let (at_signal, at_escape, terminal) = (running.stop_handle(), running.stop_handle(), raw.clone());
    thread::spawn(move || {
        let mut first = wait_at_first(&signals);
        while first.take().unwrap_or_else(|| wait_for(&signals)) == libc::SIGUSR1 {
            if let Some(running) = rescanned.upgrade() {
                running.rescan();
            }
        }
        at_signal.stop();
        while wait_for(&signals) == libc::SIGUSR1 {} // The output is stuck, it seems.
        drop(terminal);
        process::exit(19);
    });
    if raw.is_some() {
        let input = running.console_input();
        thread::spawn(move || terminal::feed(input, &at_escape));
    }
    let exit = running.wait()?; // With the last of the output, before the terminal is as it was.
    drop(raw);
    // All threads of the VM have ended. What it holds goes with the process, at once.
    mem::forget(running);

    if let Some((began, timeline)) = timeline {
        tell(began, &timeline);
    }
    let status = match exit {
        Exit::PowerOff => return Ok(0),
        Exit::Reset(_) => 16,
        Exit::GuestPanic => 17,
        Exit::Crash(_) => 18,
        Exit::Stopped => 19,
        _ => 1,
    };
    eprintln!("firecrest: {exit}");
    Ok(status)
}

/// Says when each phase was over: since the epoch for the beginning, in nanoseconds since then for the rest.
fn tell(began: SystemTime, timeline: &Timeline) {
    let epoch = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    eprintln!("firecrest: timeline: {} ns began", epoch.as_nanos());
    for (phase, since) in timeline.marks() {
        eprintln!("firecrest: timeline: {} ns {}", since.as_nanos(), phase.name());
    }
}

fn jail(name: &str) -> Result<Jail, &'static str> {
    let known = [
        ("enforce", Jail::enforce as fn() -> Jail),
        ("trap", Jail::trap),
        ("log", Jail::log),
        ("off", Jail::off),
    ];
    known
        .into_iter()
        .find(|known| known.0 == name)
        .map(|known| known.1())
        .ok_or("give enforce, trap, log or off")
}

fn by_name(name: &str) -> Result<Protocol, &'static str> {
    let known = [("auto", Protocol::Auto), ("linux", Protocol::Linux64), ("pvh", Protocol::Pvh)];
    known.into_iter().find(|known| known.0 == name).map(|known| known.1).ok_or("give auto, linux or pvh")
}

/// Blocks the signals that ask a program for something, in all threads to come; not those that our caller wants
/// ignored.
fn block_signals() -> libc::sigset_t {
    let (mut signals, mut action) = (MaybeUninit::uninit(), MaybeUninit::<libc::sigaction>::zeroed());
    // SAFETY: all pointers are to values of ours; the set is initialised first, and zero is a valid `sigaction`.
    unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1] {
            libc::sigaction(signal, ptr::null(), action.as_mut_ptr());
            if action.assume_init().sa_sigaction != libc::SIG_IGN {
                libc::sigaddset(signals.as_mut_ptr(), signal);
            }
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), ptr::null_mut());
        signals.assume_init()
    }
}

/// Waits for a signal for a moment; where there is none, the start is over, and its code's memory can be had back.
fn wait_at_first(signals: &libc::sigset_t) -> Option<libc::c_int> {
    let moment = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    // SAFETY: both pointers are to values of ours, and no more is asked for.
    let signal = unsafe { libc::sigtimedwait(signals, ptr::null_mut(), &raw const moment) };
    if signal > 0 {
        return Some(signal);
    }
    text::give_back();
    None
}

fn wait_for(signals: &libc::sigset_t) -> libc::c_int {
    let mut signal = 0;
    // SAFETY: both pointers are to values of ours. The call cannot fail.
    unsafe { libc::sigwait(signals, &raw mut signal) };
    signal
}
