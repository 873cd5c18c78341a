//! How long a boot takes by the clock on the wall: from exec to the end of a guest whose PID 1 ends it at once, where the CPU
//! virtualises. Elsewhere an emulated guest has no time that would say anything, and the lab counts instead.

use std::path::Path;

use super::monitor::{Guest, Kind, MEMORY_MIB, Monitor};
use super::record::Results;
use super::rounds::{self, Contender, Measured};
use crate::boot_image;
use crate::cache::Scratch;
use crate::error::Result;
use crate::machine::Kvm;

const NAME: &str = "exec to the end of a guest whose PID 1 ends it";

/// Boots the kernel and initramfs under all monitors.
pub fn run(
    runs: usize,
    monitors: &[Monitor],
    kernel: &Path,
    initrd: &Path,
    results: &mut Results,
) -> Result<()> {
    if Kvm::of_this_machine() != Kvm::Hardware {
        results.remark("SKIPPED boot: by the clock: the CPU here offers neither svm nor vmx".to_owned());
        return Ok(());
    }
    let scratch = Scratch::new("bench-wall")?;
    let mut contenders = monitors
        .iter()
        .map(|monitor| contender(monitor, kernel, initrd, scratch.path()))
        .collect::<Result<Vec<_>>>()?;
    let conditions = format!(
        "whole process, {MEMORY_MIB} MiB, 1 vCPU, resources/kernel-config, 1 MiB of plain initramfs; `{}`",
        boot_image::QUIET
    );
    rounds::run(
        &mut contenders,
        runs,
        &Measured { group: "boot", name: NAME, conditions: &conditions },
        results,
    )
}

fn contender(monitor: &Monitor, kernel: &Path, initrd: &Path, work: &Path) -> Result<Contender> {
    let mut cmdline = boot_image::QUIET.to_owned();
    if monitor.kind == Kind::CloudHypervisor {
        cmdline += boot_image::POWER_OFF;
    }
    let (kernel, initrd) = (kernel.to_string_lossy(), initrd.to_string_lossy());
    let guest = Guest {
        kernel: &kernel,
        initrd: Some(&initrd),
        cmdline: &cmdline,
        console: false,
        memory_mib: MEMORY_MIB,
    };
    let words = monitor.words_here(&guest, work)?;
    Ok(Contender::new(&monitor.name, words, monitor.code_of_reset()).needed(monitor.is_ours()))
}
