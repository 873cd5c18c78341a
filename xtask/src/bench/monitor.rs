//! The monitors that boot a kernel, and how each is told to: the same kernel, initrd and command line for all.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Peer;
use crate::error::{Error, Result};

/// Guest memory unless something else is said, in MiB.
pub const MEMORY_MIB: u32 = 128;

pub const QEMU: &str = "qemu-system-x86_64";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Firecrest,
    Firecracker,
    CloudHypervisor,
    Qemu,
}

/// A monitor, and where its program is.
#[derive(Clone, Debug)]
pub struct Monitor {
    pub kind: Kind,
    pub name: String,
    pub path: String,
}

/// What a monitor is to boot, by the paths it has where the monitor runs.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    pub kernel: &'a str,
    pub initrd: Option<&'a str>,
    pub cmdline: &'a str,
    /// Whether the guest has a serial port that leads to standard output.
    pub console: bool,
    pub memory_mib: u32,
}

/// The words of a command, and the configuration file it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    pub words: Vec<String>,
    /// What has to be in the file that was given for it.
    pub config: Option<String>,
}

/// Ours first, then QEMU where it is installed, then those given by path.
pub fn all(firecrest: &Path, peers: &[Peer]) -> Vec<Monitor> {
    let ours = Monitor::new(Kind::Firecrest, "firecrest", &firecrest.to_string_lossy());
    let there = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_ok();
    let qemu = there.then(|| Monitor::new(Kind::Qemu, "qemu -M microvm", QEMU));
    let given = peers.iter().map(|peer| match peer.name.as_str() {
        "firecracker" => Monitor::new(Kind::Firecracker, &peer.name, &peer.path),
        "cloud-hypervisor" => Monitor::new(Kind::CloudHypervisor, &peer.name, &peer.path),
        _ => Monitor::new(Kind::Firecrest, "peer firecrest", &peer.path),
    });
    [ours].into_iter().chain(qemu).chain(given).collect()
}

impl Monitor {
    fn new(kind: Kind, name: &str, path: &str) -> Self {
        Self { kind, name: name.to_owned(), path: path.to_owned() }
    }

    /// Whether this is the program of this checkout.
    pub fn is_ours(&self) -> bool {
        self.name == "firecrest"
    }

    /// The exit code by which it says that a guest has reset itself.
    pub fn code_of_reset(&self) -> i32 {
        if self.kind == Kind::Firecrest { 16 } else { 0 }
    }

    /// The command that boots a guest on this machine, with the configuration file it needs put in `work`.
    pub fn words_here(&self, guest: &Guest, work: &Path) -> Result<Vec<String>> {
        let config = work.join(format!("{}.json", self.name));
        let told = self.words(guest, &config.to_string_lossy());
        if let Some(text) = told.config {
            fs::write(&config, text).map_err(|error| Error::io("write", &config, &error))?;
        }
        Ok(told.words)
    }

    /// The command that boots a guest; where it needs a configuration file, that is at `config`.
    pub fn words(&self, guest: &Guest, config: &str) -> Words {
        let mut words = vec![self.path.clone()];
        let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
        let memory = guest.memory_mib.to_string();
        match self.kind {
            Kind::Firecrest => {
                add(&["run", "--memory", &memory, "--kernel", guest.kernel, "--cmdline", guest.cmdline]);
                guest.initrd.into_iter().for_each(|initrd| add(&["--initrd", initrd]));
            }
            Kind::Firecracker => add(&["--no-api", "--config-file", config]),
            Kind::CloudHypervisor => {
                let serial = if guest.console { "tty" } else { "null" };
                add(&["--memory", &format!("size={memory}M"), "--cpus", "boot=1", "--console", "off"]);
                add(&["--serial", serial, "--kernel", guest.kernel, "--cmdline", guest.cmdline]);
                guest.initrd.into_iter().for_each(|initrd| add(&["--initramfs", initrd]));
            }
            Kind::Qemu => {
                // The tables are what a kernel without an MP table of its own needs to find its devices.
                let machine = "microvm,acpi=on,pit=off,pic=off,rtc=off,auto-kernel-cmdline=off";
                add(&["-M", machine, "-accel", "kvm", "-cpu", "host", "-m", &memory]);
                add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
                add(&["-serial", if guest.console { "stdio" } else { "none" }]);
                add(&["-kernel", guest.kernel, "-append", guest.cmdline]);
                guest.initrd.into_iter().for_each(|initrd| add(&["-initrd", initrd]));
            }
        }
        Words { words, config: (self.kind == Kind::Firecracker).then(|| firecracker_config(guest)) }
    }
}

fn firecracker_config(guest: &Guest) -> String {
    let initrd = guest.initrd.map(|initrd| format!(r#","initrd_path":"{initrd}""#)).unwrap_or_default();
    let Guest { kernel, cmdline, memory_mib, .. } = guest;
    format!(
        r#"{{"boot-source":{{"kernel_image_path":"{kernel}","boot_args":"{cmdline}"{initrd}}},"drives":[],"machine-config":{{"vcpu_count":1,"mem_size_mib":{memory_mib}}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Guest<'_> =
        Guest { kernel: "/k", initrd: Some("/i"), cmdline: "quiet panic=-1", console: false, memory_mib: 96 };

    #[test]
    fn every_monitor_is_told_all_of_it() {
        let peers = ["firecracker", "cloud-hypervisor", "firecrest"]
            .map(|name| Peer { name: name.to_owned(), path: format!("/{name}") });
        for monitor in all(Path::new("/ours"), &peers) {
            let Words { words, config } = monitor.words(&GUEST, "/c");
            let told = words.join(" ") + &config.unwrap_or_default();
            for word in ["/k", "/i", "quiet panic=-1", "96"] {
                assert!(told.contains(word), "{}: {word} in {told}", monitor.name);
            }
            assert_eq!(words[0], monitor.path);
        }
    }
}
