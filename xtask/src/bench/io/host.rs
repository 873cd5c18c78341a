//! The host's side: a disk in memory, a TAP in a network namespace of its own, and sockets to talk to. All of it is
//! gone when the benchmark ends.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::report::Report;
use super::workloads::{Check, Device, Workload};
use crate::error::{Error, Result};

pub const TAP: &str = "tap0";

/// Blocks of the disk, each stamped with its number.
const BLOCK: u64 = 4096;
const BLOCKS: u64 = (128 << 20) / BLOCK;
/// What follows the stamp.
const REST: [u8; 4096 - 8] = [0; 4096 - 8];
/// Set in a stamp that the guest has written.
const WRITTEN: u64 = 1 << 63;

/// What a port of the host does with what comes; the guest knows the numbers.
const SINK: u32 = 1000;
const SOURCE: u32 = 1001;
const ECHO: u32 = 1002;

pub struct Host {
    directory: PathBuf,
    namespace: std::result::Result<Namespace, String>,
    /// Bytes that have come to the sink.
    sunk: Arc<AtomicU64>,
}

/// The host's counters before a run.
pub struct Before {
    frames: u64,
}

impl Host {
    pub fn prepare() -> Result<Self> {
        let directory = PathBuf::from(format!("/dev/shm/firecrest-bench-{}", process::id()));
        fs::create_dir_all(&directory).map_err(|error| Error::io("create", &directory, &error))?;
        let host = Self { directory, namespace: Namespace::new(), sunk: Arc::default() };
        host.stamp()?;
        let sunk = Arc::clone(&host.sunk);
        host.serve(SINK, move |stream| sink(stream, &sunk))?;
        host.serve(SOURCE, source)?;
        host.serve(ECHO, echo)?;
        Ok(host)
    }

    /// Why there is no TAP here, if so.
    pub fn lacks_tap(&self) -> Option<&str> {
        self.lacks(Device::Net)
    }

    /// The network namespace with the TAP.
    pub fn tap_namespace(&self) -> Option<&str> {
        self.namespace(Device::Net)
    }

    /// Removes the socket that a monitor has left.
    pub fn forget_socket(&self) -> Result<()> {
        match fs::remove_file(self.socket()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &self.socket(), &error))
            }
            _ => Ok(()),
        }
    }

    /// Why a workload with this device cannot run here.
    pub fn lacks(&self, device: Device) -> Option<&str> {
        self.namespace.as_ref().err().filter(|_| device == Device::Net).map(String::as_str)
    }

    /// The network namespace a monitor with this device has to run in.
    pub fn namespace(&self, device: Device) -> Option<&str> {
        self.namespace.as_ref().ok().filter(|_| device == Device::Net).map(|namespace| namespace.0.as_str())
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn disk(&self) -> PathBuf {
        self.file("disk")
    }

    pub fn socket(&self) -> PathBuf {
        self.file("vsock")
    }

    /// Makes everything as it has to be before a run.
    pub fn before(&self, workload: &Workload) -> Result<Before> {
        self.forget_socket()?;
        self.sunk.store(0, Ordering::Relaxed);
        Ok(Before { frames: if workload.check == Check::Frames { self.frames()? } else { 0 } })
    }

    /// Compares what the guest says with what the host has seen.
    pub fn check(&self, workload: &Workload, before: &Before, report: &Report) -> Result<()> {
        let (what, seen, said) = match workload.check {
            Check::ByGuest => return Ok(()),
            Check::Disk => return self.check_disk(),
            Check::Frames => ("frames", self.frames()?.saturating_sub(before.frames), report.all_operations),
            Check::Bytes => {
                // The sink may still be reading.
                let deadline = Instant::now() + Duration::from_secs(2);
                while (self.sunk.load(Ordering::Relaxed) as f64) < report.all_bytes
                    && Instant::now() < deadline
                {
                    thread::sleep(Duration::from_millis(1));
                }
                ("bytes", self.sunk.load(Ordering::Relaxed), report.all_bytes)
            }
        };
        if seen as f64 == said {
            return Ok(());
        }
        Err(Error::new(format!("the guest has sent {said} {what}, the host has seen {seen}")))
    }

    /// Frames that have come out of the TAP.
    fn frames(&self) -> Result<u64> {
        let file = format!("/sys/class/net/{TAP}/statistics/rx_packets");
        let namespace = self.namespace(Device::Net).unwrap_or_default();
        let text =
            crate::process::output(Command::new("ip").args(["netns", "exec", namespace, "cat", &file]))?;
        text.trim().parse().map_err(|_| Error::new(format!("{file} holds no number")))
    }

    fn stamp(&self) -> Result<()> {
        let path = self.disk();
        let write = || {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
            for number in 0..BLOCKS {
                file.write_all(&number.to_le_bytes())?;
                file.write_all(&REST)?;
            }
            file.flush()
        };
        write().map_err(|error| Error::io("write", &path, &error))
    }

    /// All stamps must be right and some of them the guest's; then the disk is as it was.
    fn check_disk(&self) -> Result<()> {
        let path = self.disk();
        let file = File::open(&path).map_err(|error| Error::io("open", &path, &error))?;
        let mut written = 0;
        for number in 0..BLOCKS {
            let mut stamp = [0; 8];
            file.read_exact_at(&mut stamp, number * BLOCK)
                .map_err(|error| Error::io("read", &path, &error))?;
            match u64::from_le_bytes(stamp) {
                stamp if stamp == number => {}
                stamp if stamp == number | WRITTEN => written += 1,
                stamp => return Err(Error::new(format!("block {number} on the disk holds {stamp:#x}"))),
            }
        }
        if written == 0 {
            return Err(Error::new("nothing of what was written is on the disk"));
        }
        self.stamp()
    }

    /// Listens where a monitor connects to when its guest connects to `port`.
    fn serve(&self, port: u32, each: impl Fn(UnixStream) + Clone + Send + 'static) -> Result<()> {
        let path = self.file(&format!("vsock_{port}"));
        let listener = UnixListener::bind(&path).map_err(|error| Error::io("listen on", &path, &error))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let each = each.clone();
                thread::spawn(move || each(stream));
            }
        });
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It lies in memory: worth a word when it stays.
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("xtask: cannot remove {}: {error}", self.directory.display());
        }
    }
}

const CHUNK: usize = 256 << 10;

fn sink(mut stream: UnixStream, sunk: &AtomicU64) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        sunk.fetch_add(length as u64, Ordering::Relaxed);
    }
}

fn source(mut stream: UnixStream) {
    let buffer = vec![0; CHUNK];
    while stream.write_all(&buffer).is_ok() {}
}

fn echo(mut stream: UnixStream) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// A network namespace with a TAP whose other end is its own network stack.
struct Namespace(String);

impl Namespace {
    fn new() -> std::result::Result<Self, String> {
        if !Path::new("/dev/net/tun").exists() {
            return Err("there is no /dev/net/tun".into());
        }
        let name = format!("firecrest-bench-{}", process::id());
        run(&["netns", "add", &name])?;
        let namespace = Self(name);
        // The addresses are those the guest has built in.
        for line in [
            "tuntap add TAP mode tap vnet_hdr",
            "link set TAP address 02:00:00:00:00:01 addrgenmode none up",
            "address add 10.0.0.1/24 dev TAP",
            "neighbour add 10.0.0.2 lladdr 02:00:00:00:00:02 dev TAP nud permanent",
        ] {
            let words = line.split(' ').map(|word| if word == "TAP" { TAP } else { word });
            let inside: Vec<_> = ["-n", &namespace.0].into_iter().chain(words).collect();
            run(&inside)?;
        }
        Ok(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(&["netns", "delete", &self.0]) {
            eprintln!("xtask: {error}");
        }
    }
}

fn run(args: &[&str]) -> std::result::Result<(), String> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(format!("`ip {}`: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => Err(format!("cannot start ip: {error}")),
    }
}
