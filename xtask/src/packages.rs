//! Debian packages: installed when root, named otherwise.

use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::process;

/// What the lab needs besides the kernel it boots.
pub const LAB: &[&str] = &["qemu-system-x86", "seabios", "busybox-static"];
/// ACPI's own compiler, against which the tables are checked.
pub const ACPI: &[&str] = &["acpica-tools"];
/// What goes into a guest initramfs.
pub const GUEST: &[&str] = &["busybox-static"];
/// What goes into the guest's root file system, and what makes it.
pub const ROOTFS: &[&str] =
    &["busybox-static", "dash", "e2fsprogs", "ethtool", "fio", "iperf3", "util-linux"];
/// What the device tests use on the guest's host.
pub const DEVICE_TESTS: &[&str] = &["e2fsprogs", "iperf3", "iproute2"];
/// What building the guest kernel needs; lz4 compresses its bzImage.
pub const KERNEL: &[&str] =
    &["linux-source-6.1", "gcc", "libc6-dev", "make", "flex", "bison", "bc", "libelf-dev", "xz-utils", "lz4"];

/// Makes sure that packages are installed.
///
/// # Errors
/// When one is missing and cannot be installed: the message holds the command to run.
pub fn ensure(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = format!("apt-get install --no-install-recommends {list}");
    if !has_apt() {
        return Err(Error::new(format!("this needs Debian's packages {list}, and there is no apt-get here")));
    }
    if !is_root()? {
        return Err(Error::new(format!(
            "Debian packages are missing; install them with\n\n    sudo {by_hand}\n"
        )));
    }
    println!("xtask: installing Debian packages: {list}");
    if install(&missing).is_err() {
        println!("xtask: that did not work; refreshing the package lists and trying again");
        update()?;
        install(&missing)?;
    }
    Ok(())
}

/// Refreshes apt's package lists.
pub fn update() -> Result<()> {
    process::run(apt_get().args(["-qq", "update"]))
}

/// The version apt would install or download of a package, where it knows of one.
pub fn candidate_version(package: &str) -> Result<Option<String>> {
    let policy = process::output(Command::new("apt-cache").args(["policy", package]))?;
    Ok(field(&policy, "Candidate:").filter(|version| version != "(none)"))
}

/// The version of an installed package.
pub fn installed_version(package: &str) -> Result<String> {
    let query = ["-W", "-f", "${Version}", package];
    Ok(process::output(Command::new("dpkg-query").args(query))?.trim().to_owned())
}

/// The first word after a label at the start of a line of apt's output.
pub fn field(output: &str, label: &str) -> Option<String> {
    output
        .lines()
        .find_map(|line| line.trim().strip_prefix(label)?.split_whitespace().next().map(str::to_owned))
}

/// Whether there is an apt to ask.
pub fn has_apt() -> bool {
    succeeds(Command::new("apt-get").arg("--version"))
}

/// Whether this process may install packages.
pub fn is_root() -> Result<bool> {
    Ok(process::output(Command::new("id").arg("-u"))?.trim() == "0")
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

fn install(packages: &[&str]) -> Result<()> {
    process::run(apt_get().args(["-qq", "install", "--yes", "--no-install-recommends"]).args(packages))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    command
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_apt_output() {
        let policy = "linux-image:\n  Installed: (none)\n  Candidate: 6.1.1-2\n  Version table:\n";
        assert_eq!(field(policy, "Candidate:").as_deref(), Some("6.1.1-2"));
        assert_eq!(field(policy, "Missing:"), None);
    }
}
