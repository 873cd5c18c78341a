//! The start benchmark: from exec to the end of a guest that ends with its first instructions.
//!
//! All contenders run in turn, round after round, so that a machine that slows down slows all of them down.
//! Measured is the whole process, from before it is spawned to after it is reaped: what a caller waits for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Peer;
use super::statistics::{median, range};
use crate::error::{Error, Result};
use crate::{cargo, process};

/// Rounds that are not counted, first.
const WARM_UP: usize = 3;

/// Longer than any monitor takes to start, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// One program to be measured.
struct Contender {
    name: String,
    command: Box<dyn Fn() -> Command>,
    /// The exit code by which it says that the guest ran and ended.
    code: i32,
    times: Vec<f64>,
    failure: Option<String>,
}

/// Measures all contenders and prints a table.
pub fn run(runs: usize, peers: &[Peer]) -> Result<()> {
    println!("xtask: bench: building");
    let firecrest = cargo::release_program()?;
    let work = firecrest.with_file_name("bench-start");
    fs::create_dir_all(&work).map_err(|error| Error::new(format!("{}: {error}", work.display())))?;
    let floor = compile(&work, "floor", &["-O2", "-static", "benches/start/floor.c"])?;
    let guest = compile(
        &work,
        "tiny.elf",
        &[
            "-nostdlib",
            "-static",
            "-no-pie",
            "-Wl,--build-id=none",
            "-Wl,-T,benches/start/tiny.ld",
            "benches/start/tiny.S",
        ],
    )?;
    let mut contenders = vec![
        contender("ioctl floor", 0, move || Command::new(&floor)),
        contender("firecrest", 16, {
            let guest = guest.clone();
            move || {
                let mut command = Command::new(&firecrest);
                command.arg("run").arg("--kernel").arg(&guest);
                command
            }
        }),
    ];
    contenders.extend(qemu(&guest));
    for peer in peers {
        contenders.push(contender_for(peer, &guest, &work)?);
    }
    println!("xtask: bench: {runs} rounds of {} programs", contenders.len());
    for round in 0..runs + WARM_UP {
        for contender in contenders.iter_mut().filter(|contender| contender.failure.is_none()) {
            measure(contender, round >= WARM_UP);
        }
    }
    print!("{}", table(&contenders));
    Ok(())
}

fn contender(name: &str, code: i32, command: impl Fn() -> Command + 'static) -> Contender {
    Contender { name: name.to_owned(), command: Box::new(command), code, times: Vec::new(), failure: None }
}

fn measure(contender: &mut Contender, counted: bool) {
    let mut command = (contender.command)();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let from = Instant::now();
    let ended = process::spawn(&mut command).and_then(|mut child| {
        // Waiting with a limit looks again every so often; a program that has ended by itself during the
        // warm-up is waited for without one.
        if !counted {
            return process::wait_limited(&mut child, LIMIT);
        }
        child.wait().map(Some).map_err(|error| Error::new(format!("cannot wait for a child: {error}")))
    });
    let seconds = from.elapsed().as_secs_f64();
    match ended {
        Ok(Some(status)) if status.code() == Some(contender.code) => {
            if counted {
                contender.times.push(seconds * 1e3);
            }
        }
        Ok(Some(status)) => contender.failure = Some(format!("{status}, not code {}", contender.code)),
        Ok(None) => contender.failure = Some(format!("not ended after {} s", LIMIT.as_secs())),
        Err(error) => contender.failure = Some(error.to_string()),
    }
}

fn compile(work: &Path, name: &str, args: &[&str]) -> Result<PathBuf> {
    let output = work.join(name);
    let mut command = Command::new("cc");
    command.current_dir(cargo::workspace()).args(args).arg("-o").arg(&output);
    process::run(&mut command)?;
    Ok(output)
}

fn qemu(guest: &Path) -> Option<Contender> {
    let program = "qemu-system-x86_64";
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    let guest = guest.to_owned();
    there.then(|| {
        // isa-debug-exit gives what is written, doubled, and one: of 0xfe, in a byte, that is this.
        contender("qemu -M microvm", 0xfd, move || {
            let mut command = Command::new(program);
            command
                .args([
                    "-M",
                    "microvm,acpi=off,pit=off,pic=off,rtc=off,auto-kernel-cmdline=off",
                    "-accel",
                    "kvm",
                ])
                .args([
                    "-cpu",
                    "qemu64",
                    "-m",
                    "128",
                    "-nodefaults",
                    "-no-user-config",
                    "-nographic",
                    "-no-reboot",
                ])
                .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-kernel"])
                .arg(&guest);
            command
        })
    })
}

fn contender_for(peer: &Peer, guest: &Path, work: &Path) -> Result<Contender> {
    let (path, guest) = (peer.path.clone(), guest.to_owned());
    if peer.name == "firecrest" {
        return Err(Error::usage("bench start does not compare two builds of this program"));
    }
    if peer.name == "cloud-hypervisor" {
        return Ok(contender(&peer.name, 0, move || {
            let mut command = Command::new(&path);
            command.args([
                "--memory",
                "size=128M",
                "--cpus",
                "boot=1",
                "--serial",
                "null",
                "--console",
                "off",
            ]);
            command.arg("--kernel").arg(&guest);
            command
        }));
    }
    let config = work.join("firecracker.json");
    let text = format!(
        r#"{{"boot-source":{{"kernel_image_path":"{}"}},"drives":[],"machine-config":{{"vcpu_count":1,"mem_size_mib":128}}}}"#,
        guest.display()
    );
    fs::write(&config, text).map_err(|error| Error::new(format!("{}: {error}", config.display())))?;
    Ok(contender(&peer.name, 0, move || {
        let mut command = Command::new(&path);
        command.args(["--no-api", "--no-seccomp", "--config-file"]).arg(&config);
        command
    }))
}

fn table(contenders: &[Contender]) -> String {
    let floor = contenders.first().map_or(f64::NAN, |floor| median(&floor.times));
    let mut text =
        format!("\n{:<20} {:>10} {:>10} {:>10} {:>8} {:>5}\n", "", "median ms", "min", "max", "x floor", "n");
    for contender in contenders {
        let line = match &contender.failure {
            Some(failure) => format!("{:<20} did not run the guest: {failure}\n", contender.name),
            None => {
                let (middle, (min, max)) = (median(&contender.times), range(&contender.times));
                let ratio = middle / floor;
                let count = contender.times.len();
                format!(
                    "{:<20} {middle:>10.2} {min:>10.2} {max:>10.2} {ratio:>8.2} {count:>5}\n",
                    contender.name
                )
            }
        };
        text.push_str(&line);
    }
    text
}
