//! A Linux guest that boots from a disk and does what a script of `tests/guest` says, in step with its test.
//!
//! The script's lines `FC name=value` are what the test reads. At a checkpoint the guest waits until the test has done
//! its part.

use std::cell::Cell;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use firecrest_vmm::{Block, Builder, Console, Exit, Kernel, Running, Vm};

use super::{LONG, Recorder, wait};

const VMLINUX: &str = "FIRECREST_GUEST_VMLINUX";
/// The root file system, which guests share and none writes to.
pub const ROOTFS: &str = "FIRECREST_GUEST_ROOTFS";

/// The path in a variable that `cargo xtask test --level 3` sets.
pub fn file(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run `cargo xtask test --level 3`"))
}

/// A machine whose guest has its root file system on `vda`, to run a script with these words on its command line.
///
/// `rest` adds what else it has.
pub fn start(script: &str, words: &str, rest: impl FnOnce(Builder) -> Builder) -> Guest {
    let root = Block::file(file(ROOTFS)).read_only(true);
    start_from(root, "ro", script, words, rest)
}

/// The same from a root file system of the test's own.
pub fn start_from(
    root: Block,
    mode: &str,
    script: &str,
    words: &str,
    rest: impl FnOnce(Builder) -> Builder,
) -> Guest {
    let cmdline = format!("console=ttyS4 quiet panic=-1 root=/dev/vda {mode} fc.run={script}.sh {words}");
    let console = Recorder::default();
    let builder = Vm::builder()
        .memory_mib(256)
        .vcpus(2)
        .kernel(Kernel::open(file(VMLINUX)).unwrap().cmdline(cmdline))
        .console(Console::to(console.clone()))
        .block(root);
    let running = rest(builder).build().unwrap().start().unwrap();
    Guest { running, console, script: script.to_owned(), served: Cell::new(0) }
}

/// A guest that runs.
pub struct Guest {
    pub running: Running,
    console: Recorder,
    script: String,
    /// How many times the guest has said that it serves.
    served: Cell<usize>,
}

impl Guest {
    /// The value of a line `FC name=value`.
    pub fn said(&self, name: &str) -> String {
        self.values(name).next().unwrap_or_else(|| panic!("no FC {name}= in\n{}", self.console.text()))
    }

    /// The same, as a number.
    pub fn number(&self, name: &str) -> u64 {
        let value = self.said(name);
        value.parse().unwrap_or_else(|_| panic!("{name}={value} in\n{}", self.console.text()))
    }

    /// Waits for the guest at a checkpoint, does something, and lets it go on.
    pub fn at<T>(&self, checkpoint: &str, action: impl FnOnce() -> T) -> T {
        self.until(&format!("at={checkpoint}"), 1);
        let result = action();
        // The line may be longer than the port's room is at this moment, but the guest waits for it.
        self.running.console_input().write_all(format!("after {checkpoint}\n").as_bytes()).unwrap();
        result
    }

    /// Waits until a program in the guest takes connections.
    pub fn serving(&self) {
        self.served.set(self.served.get() + 1);
        self.until("serving=", self.served.get());
    }

    /// Waits until the guest has said a line that begins so, for the `count`th time.
    pub fn until(&self, line: &str, count: usize) {
        let line = format!("FC {line}");
        let start = Instant::now();
        loop {
            // Looked at before the console, so that what was said last is not missed.
            let late = start.elapsed() > LONG || self.has_ended();
            if self.lines().iter().filter(|said| said.starts_with(&line)).count() >= count {
                return;
            }
            assert!(!late, "the guest did not say `{line}`; it said\n{}", self.console.text());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the guest's power-off, and checks that its script came to its end.
    pub fn finish(&self) {
        let exit = wait(&self.running);
        let text = self.console.text();
        assert_eq!(exit.unwrap_or_else(|error| panic!("{error}\n{text}")), Exit::PowerOff, "{text}");
        assert!(text.contains(&format!("FC run={}.sh rc=0", self.script)), "the script failed:\n{text}");
        // As the kernel begins its own; not what it says of mitigations that it has not.
        for complaint in ["BUG:", "WARNING: CPU:", "Oops", "soft lockup", "I/O error, dev vda"] {
            assert!(!text.contains(complaint), "{complaint}\n{text}");
        }
    }

    fn has_ended(&self) -> bool {
        self.console.text().contains("FC run=")
    }

    fn lines(&self) -> Vec<String> {
        // A line that is not whole yet is not one.
        let text = self.console.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = String> {
        let prefix = format!("FC {name}=");
        self.lines().into_iter().filter_map(move |line| line.strip_prefix(&prefix).map(str::to_owned))
    }
}
