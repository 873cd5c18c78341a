//! A network of the test's own, and the host's end of the wire.

use std::io::{BufRead, BufReader};
use std::panic::resume_unwind;
use std::process::{Child, Command, Stdio};
use std::thread;

/// The host's address; the guest's is 10.0.0.2.
pub const HOST: &str = "10.0.0.1";
pub const GUEST: &str = "10.0.0.2";

/// Runs a test in a network namespace that nobody else uses: its interfaces go when it ends. Threads and programs it
/// starts are in there with it.
///
/// Skips the test where this process may not make one.
pub fn in_a_namespace(name: &'static str, test: impl FnOnce() + Send + 'static) {
    // A thread of its own: the harness's goes on to other tests.
    let thread = thread::spawn(move || {
        // SAFETY: no memory is passed; only this thread is moved.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            println!("SKIPPED {name}: no network namespace: {}", std::io::Error::last_os_error());
            return;
        }
        ip("link set lo up");
        test();
    });
    thread.join().unwrap_or_else(|panic| resume_unwind(panic));
}

/// Makes `tap0`, the host's end of the guest's wire.
pub fn tap(pairs: u32, mtu: u32) {
    ip(&format!("tuntap add dev tap0 mode tap{}", if pairs > 1 { " multi_queue" } else { "" }));
    ip(&format!("link set tap0 mtu {mtu} up"));
    ip(&format!("addr add {HOST}/24 dev tap0"));
}

/// Runs `ip` with these words.
pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An iperf3 server, stopped when this is dropped.
pub struct Iperf(Child);

impl Iperf {
    pub fn start() -> Self {
        let mut command = Command::new("iperf3");
        let mut child = command.args(["-s", "--forceflush"]).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("listening")), "iperf3 does not listen");
        // What else it says is the guest's to report; but it must be able to say it.
        thread::spawn(move || lines.for_each(drop));
        Self(child)
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
