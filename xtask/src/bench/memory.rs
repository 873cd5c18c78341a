//! The memory benchmark: what a monitor takes besides its guest's memory, alone and beside many.

use super::io::host::{self, Host};
use super::live::{Live, MEMORY_MIB};
use super::monitor::{self, Kind, Monitor};
use super::record::{Record, Results};
use super::{Peer, start};
use crate::error::Result;
use crate::{cargo, process};

/// Identical microVMs at once.
const MANY: usize = 100;

pub fn run(runs: usize, peers: &[Peer], results: &mut Results) -> Result<()> {
    println!("xtask: bench: building");
    let firecrest = cargo::release_program()?;
    let many = cargo::many_program()?;
    let work = start::work_directory()?;
    let guest = start::idle_guest(&work)?;
    for monitor in monitor::all(&firecrest, peers) {
        let bare = || Live::start(&monitor, &guest, &work, &[], None);
        if let Err(error) =
            alone(&monitor, "no devices", runs, bare, results).and_then(|()| beside(&monitor, bare, results))
        {
            if monitor.is_ours() {
                return Err(error);
            }
            results.remark(format!("memory: {}: {error}", monitor.name));
        }
        if monitor.kind == Kind::Firecrest {
            let host = Host::prepare()?;
            if let Some(reason) = host.lacks_tap() {
                results.remark(format!("SKIPPED memory: three devices: {reason}"));
                continue;
            }
            let devices = devices(&host);
            let start = || {
                host.forget_socket()?;
                Live::start(&monitor, &guest, &work, &devices, host.tap_namespace())
            };
            alone(&monitor, "a disk, a network card and a vsock", runs, start, results)?;
        }
    }
    in_one_process(&many, &guest, runs, results)
}

/// The words for a disk, a network card and a socket device.
pub fn devices(host: &Host) -> Vec<String> {
    let (disk, socket) = (host.disk(), host.socket());
    [
        "--block".to_owned(),
        format!("path={}", disk.display()),
        "--net".to_owned(),
        format!("tap={}", host::TAP),
        "--vsock".to_owned(),
        format!("cid=3,path={}", socket.display()),
    ]
    .into()
}

/// One monitor at a time.
fn alone(
    monitor: &Monitor,
    devices: &str,
    runs: usize,
    start: impl Fn() -> Result<Live>,
    results: &mut Results,
) -> Result<()> {
    let seen = (0..runs).map(|_| start()?.memory()).collect::<Result<Vec<_>>>()?;
    let conditions = format!("idle guest of a few instructions, {MEMORY_MIB} MiB, {devices}");
    let mut push = |name: &str, series: Vec<f64>| {
        results.push(Record::of("memory", name, &monitor.name, "KiB", &series).conditions(&conditions));
    };
    push("monitor memory besides guest RAM (RSS)", seen.iter().map(|memory| memory.rss).collect());
    push("monitor memory besides guest RAM (PSS)", seen.iter().map(|memory| memory.pss).collect());
    push("guest memory in use", seen.iter().map(|memory| memory.guest).collect());
    Ok(())
}

/// The last of many identical ones, each a process: what others map too is told in equal parts.
fn beside(monitor: &Monitor, start: impl Fn() -> Result<Live>, results: &mut Results) -> Result<()> {
    let all = (0..MANY).map(|_| start()).collect::<Result<Vec<_>>>()?;
    let Some(last) = all.last() else { return Ok(()) };
    let memory = last.memory()?;
    let conditions = format!("{MANY} processes with the idle guest, {MEMORY_MIB} MiB, no devices");
    for (name, value) in [("(PSS)", memory.pss), ("(private pages)", memory.private)] {
        let name = format!("the 100th identical microVM {name}");
        results.push(Record::of("memory", &name, &monitor.name, "KiB", &[value]).conditions(&conditions));
    }
    Ok(())
}

/// What each further microVM adds to one process, its guest's pages included.
fn in_one_process(
    many: &std::path::Path,
    guest: &std::path::Path,
    runs: usize,
    results: &mut Results,
) -> Result<()> {
    let (name, step) = (MANY.to_string(), "10");
    let mut series = Vec::new();
    for _ in 0..runs {
        let mut command = std::process::Command::new(many);
        let text = process::output(command.arg("live").arg(guest).args([&name, step]))?;
        series.extend(super::density::value(&text, &format!("kib-of-each-to-{MANY}")));
    }
    let record =
        Record::of("memory", "each of the last 10 of 100 in one process (RSS)", "firecrest", "KiB", &series);
    results.push(record.conditions("benches/many, idle guest, its pages included"));
    Ok(())
}
