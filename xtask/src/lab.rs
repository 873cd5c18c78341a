//! The lab: real KVM on any machine.
//!
//! QEMU emulates an AMD CPU with SVM and nested paging (no acceleration, so no virtualisation is needed to run it);
//! Debian's stock kernel boots in it with kvm-amd, and a program runs there as root.
//!
//! The program has the first serial port for itself, raw in both directions. Everything the lab's kernel and init
//! have to say goes to the second one, the program's exit code included: nothing is mixed into the program's output,
//! and nothing in it can be taken for an exit code.

mod image;
mod report;

pub use image::words;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cache::Scratch;
use crate::error::{Error, Result};
use crate::{args, debian_kernel, packages, process, programs};

const HELP: &str = "\
Runs a program as root under real KVM in an emulated machine, and exits with its exit code.

Usage: cargo xtask lab [OPTION...] -- PROGRAM [ARG...]

  --cpus N              CPUs (1; with more, QEMU 7.2's emulation of nested paging may freeze the lab)
  --memory MIB          memory in MiB (2048)
  --timeout S           seconds until the lab is stopped; the exit code is 124 then (300)
  --file SRC[:DEST]     also copy this file in; DEST defaults to /lab/NAME (repeatable)
  --icount              deterministic: one CPU, one virtual nanosecond for each instruction executed
  --stdin               hand this terminal or pipe to the program; without it, it reads end-of-file.
                        End-of-file itself is not passed on. Ctrl-] ends the lab when typed on a terminal
  --log FILE            write what the lab's own kernel has to say to FILE

PROGRAM is copied to /lab/NAME and runs there; a dynamically linked one gets its libraries. There are TUN, vhost-net,
vhost-vsock, loop devices and debugfs, and busybox for everything else. Its standard error is joined to its standard
output. Variables whose names start with FIRECREST_ are passed on, and RUST_BACKTRACE, RUST_LOG, RUST_TEST_THREADS.

As a cargo runner it runs any test under KVM (the tool's own path, since cargo would run `cargo xtask` in it too):

  cargo build -p xtask
  CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=\"$PWD/target/x86_64-unknown-linux-gnu/debug/xtask lab --\" \\
    cargo test --test NAME
";

/// A program to run in the lab, and what it needs there.
pub struct Lab {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Variables besides those passed on from this process.
    pub env: Vec<(String, String)>,
    /// Source here, destination there.
    pub files: Vec<(PathBuf, String)>,
    pub cpus: u32,
    pub memory_mib: u32,
    pub timeout: Duration,
    pub icount: bool,
    /// Whether the emulated CPU has XSAVE, which a peer insists on. See [`Self::qemu`] for why it has not otherwise.
    pub xsave: bool,
    /// Whether the program reads what is written to [`Running::stdin`]; it reads end-of-file otherwise.
    pub stdin: bool,
    /// Where to keep the log of the lab's own kernel.
    pub log: Option<PathBuf>,
    /// What is to count in the emulation.
    pub plugin: Option<Plugin>,
}

/// A plugin of QEMU's, and the file that it is to write.
pub struct Plugin {
    pub library: PathBuf,
    pub out: PathBuf,
}

impl Lab {
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            cpus: 1,
            memory_mib: 2048,
            timeout: Duration::from_secs(300),
            icount: false,
            xsave: false,
            stdin: false,
            log: None,
            plugin: None,
        }
    }

    /// Copies a file in, to `/lab/NAME`, and returns that path.
    pub fn bring(&mut self, source: &Path) -> String {
        let destination = image::default_destination(source);
        self.files.push((source.to_owned(), destination.clone()));
        destination
    }

    /// Copies one of this machine's programs to where the lab's PATH begins.
    pub fn bring_program(&mut self, name: &str) -> Result<()> {
        self.files.push((programs::find(name)?, format!("/lab/bin/{name}")));
        Ok(())
    }

    /// Starts the lab. What it needs is installed first.
    pub fn start(&self) -> Result<Running> {
        packages::ensure(packages::LAB)?;
        let kernel = debian_kernel::ensure()?;
        let scratch = Scratch::new("lab")?;
        let initramfs = scratch.path().join("initramfs");
        let bytes = image::build(self, &kernel)?;
        fs::write(&initramfs, bytes).map_err(|error| Error::io("write", &initramfs, &error))?;
        let log = scratch.path().join("log");

        let mut command = self.qemu(&kernel.vmlinuz, &initramfs, &log);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(&mut command)?;
        let stdin = child.stdin.take().ok_or_else(|| Error::new("QEMU's input is not a pipe"))?;
        let stdout = child.stdout.take().ok_or_else(|| Error::new("QEMU's output is not a pipe"))?;
        let deadline = Instant::now() + self.timeout;
        let keep_log = self.log.clone();
        Ok(Running {
            stdin: Some(stdin),
            stdout: Some(stdout),
            child,
            log,
            keep_log,
            deadline,
            limit: self.timeout,
            alive: (0, Instant::now()),
            _scratch: scratch,
        })
    }

    /// Runs the lab to its end, hands each line of the program's output over, and returns its exit code.
    pub fn run_lines(&self, each: impl FnMut(&str)) -> Result<u8> {
        let mut running = self.start()?;
        let stdout = running.stdout.take().ok_or_else(|| Error::new("the lab's output is not a pipe"))?;
        process::each_line_while(stdout, running.remaining(), || true, each);
        running.wait()
    }

    /// Pipes, never this process's own terminal: QEMU makes what it is given non-blocking for everyone who shares it.
    fn qemu(&self, kernel: &Path, initramfs: &Path, log: &Path) -> Command {
        let mut command = process::dies_with_us("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        // Without XSAVE and what needs it: this QEMU lets a nested guest set XCR0 behind KVM's back. Its kernel
        // then warns of CPUID leaves that do not add up, or its programs die of signal frames that do not.
        let without = if self.xsave { "" } else { ",-xsave,-avx,-avx2,-fma,-f16c" };
        command.args(["-M", "q35", "-cpu", &format!("EPYC,+svm,+npt{without}")]);
        if self.icount {
            command.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-smp", "1"]);
            command.args(["-seed", "1"]); // What RDRAND gives.
        } else {
            command.args(["-accel", "tcg,thread=multi", "-smp", &self.cpus.to_string()]);
        }
        if let Some(Plugin { library, out }) = &self.plugin {
            command.arg("-plugin").arg(format!("{},out={}", library.display(), out.display()));
        }
        command.args(["-m", &self.memory_mib.to_string()]);
        command.args(["-chardev", "stdio,id=program,signal=off", "-serial", "chardev:program"]);
        command.args(["-serial", &format!("file:{}", log.display())]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
        // A panic ends the machine (with -no-reboot). Mitigations and address randomisation protect nobody here.
        let level = if self.log.is_some() { "loglevel=7" } else { "quiet" };
        let append = format!("console=ttyS1 reboot=t panic=-1 mitigations=off nokaslr {level}");
        command.args(["-append", &append]);
        command
    }
}

/// A lab that says nothing for so long has frozen.
const SILENCE: Duration = Duration::from_secs(60);

/// A lab that has been started.
pub struct Running {
    /// What the program reads.
    pub stdin: Option<ChildStdin>,
    /// What the program writes.
    pub stdout: Option<ChildStdout>,
    child: Child,
    log: PathBuf,
    keep_log: Option<PathBuf>,
    deadline: Instant,
    limit: Duration,
    /// How long the log was when it last grew, and when that was.
    alive: (u64, Instant),
    _scratch: Scratch,
}

/// How a lab ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the program, and this exit code of it.
    Code(u8),
    /// Not at all: its kernel stopped.
    Frozen,
}

impl Running {
    /// Whether the lab's kernel has stopped: its init says something every few seconds. To be asked repeatedly.
    pub fn is_frozen(&mut self) -> bool {
        let length = fs::metadata(&self.log).map_or(0, |metadata| metadata.len());
        if length != self.alive.0 {
            self.alive = (length, Instant::now());
        }
        self.alive.1.elapsed() > SILENCE
    }

    /// As [`wait`](Self::wait), for a lab that may have frozen.
    pub fn end(mut self) -> Result<End> {
        if self.is_frozen() { Ok(End::Frozen) } else { self.wait().map(End::Code) }
    }

    /// How long the lab may still run.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits for the lab's end and returns the program's exit code.
    pub fn wait(mut self) -> Result<u8> {
        let remaining = self.remaining();
        let ended = process::wait_limited(&mut self.child, remaining)?;
        let log = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        if let Some(path) = &self.keep_log {
            fs::write(path, &log).map_err(|error| Error::io("write", path, &error))?;
        }
        let Some(status) = ended else {
            return Err(Error::timed_out(format!("the lab did not end within {} s", self.limit.as_secs())));
        };
        if let Some(code) = report::exit_code(&log) {
            return Ok(code);
        }
        let mut complaint = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            use std::io::Read;
            // Only makes the message better.
            let _ = stderr.read_to_string(&mut complaint);
        }
        let end = report::tail(&format!("{log}\n{complaint}"), 20);
        Err(Error::new(format!(
            "the lab ended before the program did (QEMU: {status}); its last words:\n{end}"
        )))
    }

    /// Copies the program's output to this process's own until it ends or time is up.
    fn copy_output(&mut self) {
        let Some(stdout) = self.stdout.take() else { return };
        let mut out = std::io::stdout();
        process::each_chunk(stdout, self.remaining(), |chunk| {
            // A reader that went away must not keep the program from its end.
            let _ = out.write_all(chunk).and_then(|()| out.flush());
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        process::kill(&mut self.child);
    }
}

pub fn command(mut parser: lexopt::Parser) -> Result<u8> {
    use lexopt::prelude::*;
    let mut lab = Lab::new("");
    while let Some(arg) = parser.next()? {
        match arg {
            Long("cpus") => lab.cpus = args::number(&mut parser, "--cpus")?,
            Long("memory") => lab.memory_mib = args::number(&mut parser, "--memory")?,
            Long("timeout") => lab.timeout = Duration::from_secs(args::number(&mut parser, "--timeout")?),
            Long("file") => lab.files.push(image::file_argument(&parser.value()?.to_string_lossy())),
            Long("icount") => lab.icount = true,
            Long("stdin") => lab.stdin = true,
            Long("log") => lab.log = Some(parser.value()?.into()),
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(0);
            }
            Value(program) => {
                lab.program = program.into();
                // What follows is the program's own, whatever it looks like.
                lab.args = parser.raw_args()?.collect();
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    if lab.program.as_os_str().is_empty() {
        return Err(Error::usage("no PROGRAM; `cargo xtask lab --help` shows how"));
    }
    run(&lab)
}

/// Runs a lab with this process's input (where it wants one) and output, and returns the program's exit code.
pub fn run(lab: &Lab) -> Result<u8> {
    let mut running = lab.start()?;
    let terminal = if lab.stdin { forward_input(&mut running)? } else { None };
    running.copy_output();
    let code = running.wait();
    drop(terminal);
    code
}

/// Copies this process's input to the program from a thread of its own.
fn forward_input(running: &mut Running) -> Result<Option<RawTerminal>> {
    let Some(mut program) = running.stdin.take() else { return Ok(None) };
    let terminal = RawTerminal::take()?;
    let pid = running.child.id();
    let typed = terminal.is_some();
    let log = running.log.clone();
    std::thread::spawn(move || {
        use std::io::Read;
        // A serial port that nobody has opened yet loses what it is sent.
        while !report::is_started(&String::from_utf8_lossy(&fs::read(&log).unwrap_or_default())) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut buffer) {
            if typed && buffer[..length].contains(&CTRL_CLOSE_BRACKET) {
                // The main thread sees the lab end; a failure means that it already has.
                let _ = Command::new("kill").arg(pid.to_string()).status();
                return;
            }
            if program.write_all(&buffer[..length]).and_then(|()| program.flush()).is_err() {
                return;
            }
        }
    });
    Ok(terminal)
}

const CTRL_CLOSE_BRACKET: u8 = 0x1d;

/// The terminal on standard input in raw mode, until dropped.
struct RawTerminal(String);

impl RawTerminal {
    /// `None` when standard input is not a terminal.
    fn take() -> Result<Option<Self>> {
        use std::io::IsTerminal;
        if !std::io::stdin().is_terminal() {
            return Ok(None);
        }
        let settings = Command::new("stty").arg("-g").stdin(Stdio::inherit()).output();
        let settings = settings.map_err(|error| Error::new(format!("cannot run stty: {error}")))?;
        let saved = Self(String::from_utf8_lossy(&settings.stdout).trim().to_owned());
        saved.stty(&["raw", "-echo"]);
        Ok(Some(saved))
    }

    fn stty(&self, args: &[&str]) {
        // A terminal that refuses is still one to type on.
        let _ = Command::new("stty").args(args).stdin(Stdio::inherit()).status();
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.stty(&[&self.0]);
    }
}

/// The variables of this process that a program in the lab gets too.
fn passed_on() -> Vec<(String, String)> {
    let wanted = |name: &str| {
        name.starts_with("FIRECREST_") && name != "FIRECREST_CACHE"
            || ["RUST_BACKTRACE", "RUST_LOG", "RUST_TEST_THREADS"].contains(&name)
    };
    let text = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    text.filter(|(name, _)| wanted(name)).collect()
}
