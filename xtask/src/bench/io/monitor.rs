//! The monitors, and how each is told to run the guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::Peer;
use super::super::record::Results;
use super::host::{self, Host};
use super::workloads::{Device, Workload};
use crate::error::{Error, Result};
use crate::process;

/// Enough for the guest's buffers.
const MEMORY_MIB: u32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Firecrest,
    Firecracker,
}

/// How a block device reaches its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sync,
    IoUring,
}

/// A monitor, with one of its engines where it has a block device.
pub struct Monitor {
    kind: Kind,
    path: PathBuf,
    /// Given by path, to be compared with.
    pub is_peer: bool,
    pub engine: Engine,
}

/// Ours and the peers', each with both engines.
pub fn all(firecrest: &Path, peers: &[Peer], results: &mut Results) -> Vec<Monitor> {
    let mut programs = vec![(Kind::Firecrest, firecrest.to_owned(), false)];
    for peer in peers {
        let kind = match peer.name.as_str() {
            "firecrest" => Kind::Firecrest,
            "firecracker" => Kind::Firecracker,
            other => {
                results.remark(format!("SKIPPED io: {other}: the guest needs virtio-mmio"));
                continue;
            }
        };
        programs.push((kind, PathBuf::from(&peer.path), true));
    }
    let with = |engine| {
        let programs = programs.iter().cloned();
        programs.map(move |(kind, path, is_peer)| Monitor { kind, path, is_peer, engine })
    };
    with(Engine::Sync).chain(with(Engine::IoUring)).collect()
}

impl Monitor {
    /// Engines are the block device's: for all others one will do.
    pub fn has(&self, device: Device) -> bool {
        device == Device::Block || self.engine == Engine::Sync
    }

    pub fn name(&self, device: Device) -> String {
        let program = match (self.kind, self.is_peer) {
            (Kind::Firecrest, false) => "firecrest",
            (Kind::Firecrest, true) => "peer firecrest",
            (Kind::Firecracker, _) => "firecracker",
        };
        match (device, self.engine) {
            (Device::Block, Engine::Sync) => format!("{program}, sync"),
            (Device::Block, Engine::IoUring) => format!("{program}, io_uring"),
            _ => program.to_owned(),
        }
    }

    /// The exit code by which it says that the guest has ended the run.
    pub fn code(&self) -> i32 {
        match self.kind {
            Kind::Firecrest => 16,
            Kind::Firecracker => 0,
        }
    }

    /// The command that runs the guest with the device the workload needs.
    pub fn command(&self, workload: &Workload, guest: &Path, cmdline: &str, host: &Host) -> Result<Command> {
        // No wrapper stays between: each becomes what it starts, so that the child is the monitor.
        let mut command = match host.namespace(workload.device) {
            Some(namespace) => {
                let mut command = process::dies_with_us("ip");
                command.args(["netns", "exec", namespace]).arg(&self.path);
                command
            }
            None => process::dies_with_us(&self.path),
        };
        match self.kind {
            Kind::Firecrest => {
                command.args(["run", "--memory", &MEMORY_MIB.to_string(), "--cmdline", cmdline, "--kernel"]);
                command.arg(guest);
                command.args(self.firecrest_device(workload.device, host));
            }
            Kind::Firecracker => {
                let config = host.file("firecracker.json");
                fs::write(&config, self.firecracker_config(workload.device, guest, cmdline, host))
                    .map_err(|error| Error::io("write", &config, &error))?;
                command.args(["--no-api", "--config-file"]).arg(&config);
            }
        }
        Ok(command)
    }

    fn firecrest_device(&self, device: Device, host: &Host) -> [String; 2] {
        let engine = match self.engine {
            Engine::Sync => "sync",
            Engine::IoUring => "io_uring",
        };
        match device {
            Device::Block => ["--block".into(), format!("path={},engine={engine}", host.disk().display())],
            Device::Net => ["--net".into(), format!("tap={}", host::TAP)],
            Device::Vsock => ["--vsock".into(), format!("cid=3,path={}", host.socket().display())],
        }
    }

    fn firecracker_config(&self, device: Device, guest: &Path, cmdline: &str, host: &Host) -> String {
        let engine = match self.engine {
            Engine::Sync => "Sync",
            Engine::IoUring => "Async",
        };
        let device = match device {
            Device::Block => format!(
                r#""drives":[{{"drive_id":"disk","path_on_host":"{}","is_root_device":false,"is_read_only":false,"io_engine":"{engine}"}}]"#,
                host.disk().display()
            ),
            Device::Net => format!(
                r#""drives":[],"network-interfaces":[{{"iface_id":"net","host_dev_name":"{}"}}]"#,
                host::TAP
            ),
            Device::Vsock => {
                format!(r#""drives":[],"vsock":{{"guest_cid":3,"uds_path":"{}"}}"#, host.socket().display())
            }
        };
        format!(
            r#"{{"boot-source":{{"kernel_image_path":"{}","boot_args":"{cmdline}"}},"machine-config":{{"vcpu_count":1,"mem_size_mib":{MEMORY_MIB}}},{device}}}"#,
            guest.display()
        )
    }
}
