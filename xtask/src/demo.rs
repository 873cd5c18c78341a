//! `cargo xtask demo`: Debian's stock kernel in a microVM, to a shell and off again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cache::Scratch;
use crate::error::{Error, Result};
use crate::lab::{self, Lab};
use crate::machine::{Kvm, Place};
use crate::transcript::Transcript;
use crate::{cargo, debian_kernel, guest, process};

const HELP: &str = "\
Boots Debian's stock cloud kernel in a microVM to a shell prompt, types a few commands, powers it off, and shows how
long each step took. Where the CPU has no virtualisation to offer it does so in the lab (`cargo xtask lab --help`).

Usage: cargo xtask demo [--interactive]

  --interactive     leave the shell to you; `poweroff -f` or Ctrl-A x ends it
";

const CMDLINE: &str = "console=ttyS0 panic=-1";
const PROMPT: &str = "guest# ";
const LAB_UP: &str = "-- the lab is up";
const TYPED: &[&str] = &[
    "uname -a",
    "nproc",
    "free -m",
    "cat /proc/cmdline",
    "cat /sys/devices/system/clocksource/clocksource0/current_clocksource",
    "dmesg | grep -i -e kvm -e hypervisor",
];
/// An emulated machine on a busy one needs patience.
const BOOT: Duration = Duration::from_secs(240);
const STEP: Duration = Duration::from_secs(60);

pub fn command(mut parser: lexopt::Parser) -> Result<u8> {
    let mut interactive = false;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("interactive") => interactive = true,
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return Ok(0);
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    let place = Kvm::of_this_machine().for_linux_guests();
    println!("xtask: building firecrest");
    let demo = Demo {
        firecrest: cargo::release_program()?,
        kernel: debian_kernel::ensure()?.vmlinuz,
        initramfs: guest::ensure()?,
    };
    println!("xtask: booting {} {place}", demo.kernel.display());
    match (interactive, place) {
        (true, Place::Host) => demo.interactive_on_host(),
        (true, Place::Lab) => demo.interactive_in_lab(),
        (false, Place::Host) => demo.scripted_on_host(),
        (false, Place::Lab) => demo.scripted_in_lab(),
    }
}

struct Demo {
    firecrest: PathBuf,
    kernel: PathBuf,
    initramfs: PathBuf,
}

impl Demo {
    fn interactive_on_host(&self) -> Result<u8> {
        let mut child = process::spawn(&mut self.on_host())?;
        let status =
            child.wait().map_err(|error| Error::new(format!("cannot wait for firecrest: {error}")))?;
        Ok(process::shell_code(status))
    }

    fn interactive_in_lab(&self) -> Result<u8> {
        println!("xtask: the lab needs some seconds; Ctrl-] ends it from outside");
        let scratch = Scratch::new("demo")?;
        let mut lab = self.lab(&scratch)?;
        lab.timeout = Duration::from_secs(24 * 3600);
        lab::run(&lab)
    }

    fn scripted_on_host(&self) -> Result<u8> {
        let started = Instant::now();
        let mut command = self.on_host();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = KilledOnDrop(process::spawn(&mut command)?);
        let (Some(stdin), Some(stdout)) = (child.0.stdin.take(), child.0.stdout.take()) else {
            return Err(Error::new("firecrest's input and output are not pipes"));
        };
        let mut transcript = Transcript::new(process::chunks(stdout), MILESTONES);
        converse(&mut transcript, stdin)?;
        let status = process::wait_limited(&mut child.0, STEP)?
            .ok_or_else(|| Error::timed_out("firecrest did not end after its guest powered off"))?;
        conclude(&transcript, started, process::shell_code(status))
    }

    fn scripted_in_lab(&self) -> Result<u8> {
        let scratch = Scratch::new("demo")?;
        let started = Instant::now();
        let mut running = self.lab(&scratch)?.start()?;
        let (Some(stdin), Some(stdout)) = (running.stdin.take(), running.stdout.take()) else {
            return Err(Error::new("the lab's input and output are not pipes"));
        };
        let mut transcript = Transcript::new(process::chunks(stdout), MILESTONES);
        converse(&mut transcript, stdin)?;
        let code = running.wait()?;
        conclude(&transcript, started, code)
    }

    fn on_host(&self) -> Command {
        let mut command = process::dies_with_us(&self.firecrest);
        command.args(arguments(&self.kernel.to_string_lossy(), &self.initramfs.to_string_lossy()));
        command
    }

    /// A lab that says when it is up and then becomes firecrest.
    fn lab(&self, scratch: &Scratch) -> Result<Lab> {
        let script = scratch.path().join("demo.sh");
        let mut lab = Lab::new(&script);
        lab.stdin = true;
        lab.memory_mib = 1024;
        lab.timeout = BOOT + STEP * 10;
        let firecrest = lab.bring(&self.firecrest);
        let arguments = arguments(&lab.bring(&self.kernel), &lab.bring(&self.initramfs));
        write_script(&script, &format!("#!/bin/sh\necho '{LAB_UP}'\nexec {firecrest} \"$@\"\n"))?;
        lab.args = arguments.into_iter().map(Into::into).collect();
        Ok(lab)
    }
}

fn arguments(kernel: &str, initramfs: &str) -> Vec<String> {
    let words = [
        "run",
        "--kernel",
        kernel,
        "--initrd",
        initramfs,
        "--cmdline",
        CMDLINE,
        "--memory",
        "256",
        "--cpus",
        "2",
    ];
    words.map(str::to_owned).to_vec()
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).map_err(|error| Error::io("write", path, &error))?;
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, executable).map_err(|error| Error::io("make executable", path, &error))
}

/// In the order in which they pass.
const MILESTONES: &[(&str, &str)] = &[
    ("the lab is up, firecrest starts", LAB_UP),
    ("the kernel's first line", "Linux version"),
    ("init starts", "FC init"),
    ("shell prompt", PROMPT),
    ("power-off", "reboot: Power down"),
];

/// The demo's side of the conversation, to the end of the guest's output.
fn converse(transcript: &mut Transcript, mut guest: ChildStdin) -> Result<()> {
    let mut say = |line: &str| {
        let typed = guest.write_all(format!("{line}\n").as_bytes()).and_then(|()| guest.flush());
        typed.map_err(|error| Error::new(format!("the guest takes no more input: {error}")))
    };
    transcript.expect(PROMPT, BOOT)?;
    for line in TYPED {
        say(line)?;
        transcript.expect(PROMPT, STEP)?;
    }
    say("poweroff -f")?;
    transcript.finish(STEP)
}

fn conclude(transcript: &Transcript, started: Instant, code: u8) -> Result<u8> {
    let ended = Instant::now();
    println!("\nBoot timeline, seconds since the start:");
    println!("  {:8.3}  started", 0.0);
    for milestone in transcript.milestones() {
        if let Some(passed) = milestone.passed {
            println!("  {:8.3}  {}", (passed - started).as_secs_f64(), milestone.name);
        }
    }
    println!("  {:8.3}  ended, exit code {code}", (ended - started).as_secs_f64());
    if let Some(init) = transcript.kernel_time("Run /init as init process") {
        println!("By the guest kernel's own clock it ran init after {init} s.");
    }
    if code != 0 {
        return Err(Error::new(format!(
            "the guest should have powered off (exit code 0), but it was {code}"
        )));
    }
    println!("The guest powered itself off.");
    Ok(0)
}

/// A child that is gone when the demo gives up on it.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        process::kill(&mut self.0);
    }
}
