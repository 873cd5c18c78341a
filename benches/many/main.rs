//! Many microVMs in one process, as an embedder has them: how many a second, and what each further one takes.
//!
//! `cargo xtask bench density` and `memory` run it. Prints lines `many: NAME VALUE`.
//!
//! - `many run KERNEL THREADS COUNT`: COUNT machines built, run to their guest's reset and torn down, by so many threads
//! - `many live KERNEL COUNT STEP`: COUNT machines started and kept, told every STEP; then all are torn down

#![allow(clippy::arithmetic_side_effects, reason = "a benchmark: it counts what it was told to")]

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use firecrest_vmm::{Console, Exit, Kernel, Vm};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Guest memory, in MiB.
const MEMORY_MIB: u64 = 32;

/// Machines before those that are counted.
const WARM_UP: usize = 20;

/// Longer than a guest takes for its first byte.
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run", kernel, threads, count] => run(&Kernel::open(kernel)?, threads.parse()?, count.parse()?),
        ["live", kernel, count, step] => live(&Kernel::open(kernel)?, count.parse()?, step.parse()?),
        _ => Err("usage: many run KERNEL THREADS COUNT | many live KERNEL COUNT STEP".into()),
    }
}

fn run(kernel: &Kernel, threads: usize, count: usize) -> Result<()> {
    let once = || -> Result<()> {
        match Vm::builder().memory_mib(MEMORY_MIB).kernel(kernel.clone()).build()?.start()?.wait()? {
            Exit::Reset(_) => Ok(()),
            exit => Err(format!("a guest did not reset itself: {exit}").into()),
        }
    };
    (0..WARM_UP).try_for_each(|_| once())?;
    let (taken, began) = (AtomicUsize::new(0), Instant::now());
    let work = || -> Result<()> {
        while taken.fetch_add(1, Ordering::Relaxed) < count {
            once()?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".into())))
    })?;
    println!("many: seconds {}", began.elapsed().as_secs_f64());
    Ok(())
}

fn live(kernel: &Kernel, count: usize, step: usize) -> Result<()> {
    let said = Said::default();
    let mut machines = Vec::with_capacity(count);
    let (mut began, mut before) = (Instant::now(), resident_kib()?);
    println!("many: kib-at-0 {before}");
    for number in 1..=count {
        let builder = Vm::builder().memory_mib(MEMORY_MIB).kernel(kernel.clone());
        machines.push(builder.console(Console::to(said.clone())).build()?.start()?);
        if number % step.max(1) == 0 {
            said.wait_for(number)?;
            let (seconds, resident) = (began.elapsed().as_secs_f64(), resident_kib()?);
            println!("many: seconds-to-{number} {seconds}");
            println!("many: kib-of-each-to-{number} {}", (resident - before) / step as f64);
            (began, before) = (Instant::now(), resident);
        }
    }
    let began = Instant::now();
    drop(machines);
    println!("many: teardown-seconds {}", began.elapsed().as_secs_f64());
    Ok(())
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Counts the bytes that all guests have said.
#[derive(Clone, Default)]
struct Said(Arc<(Mutex<usize>, Condvar)>);

impl Said {
    fn wait_for(&self, count: usize) -> Result<()> {
        let guard = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = self
            .0
            .1
            .wait_timeout_while(guard, LIMIT, |said| *said < count)
            .unwrap_or_else(PoisonError::into_inner);
        if *guard < count {
            Err(format!("{} of {count} guests have said something", *guard).into())
        } else {
            Ok(())
        }
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut said = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *said = said.saturating_add(bytes.len());
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
