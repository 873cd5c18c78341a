//! The lab's initramfs: busybox, KVM's modules, the program with its files, and an init that runs it.
//!
//! It is left uncompressed, so that nothing has to inflate it in emulation.

use std::path::{Path, PathBuf};

use super::Lab;
use crate::cpio::Archive;
use crate::debian_kernel::DebianKernel;
use crate::error::{Error, Result};
use crate::{guest, programs};

/// In the order in which they need one another.
const MODULES: &[&str] = &[
    "irqbypass",
    "kvm",
    "kvm-amd",
    "tun",
    "tap",
    "vhost_iotlb",
    "vhost",
    "vhost_net",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vhost_vsock",
    "loop",
];
const INIT: &str = include_str!("init.sh");

/// The bytes of the initramfs.
pub fn build(lab: &Lab, kernel: &DebianKernel) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    guest::busybox(&mut archive)?;
    for directory in ["proc", "sys", "dev", "run", "tmp", "root", "mnt", "lab", "var/run", "etc"] {
        archive.directory(directory);
    }
    archive.character_device("dev/console", 5, 1);
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file(
        "etc/passwd",
        0o644,
        b"root::0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.file("modules/order", 0o644, MODULES.join("\n").as_bytes())?;
    for name in MODULES {
        archive.copy(&format!("modules/{name}.ko"), &kernel.module(name)?)?;
    }
    for (source, destination) in &lab.files {
        executable(&mut archive, source, destination)?;
    }
    let program = default_destination(&lab.program);
    executable(&mut archive, &lab.program, &program)?;
    archive.file("lab/.run", 0o755, run_script(lab, &program).as_bytes())?;
    if lab.stdin {
        archive.file("lab/.stdin", 0o644, b"")?;
    }
    Ok(archive.finish())
}

/// Where a file goes when nothing else is said.
pub fn default_destination(source: &Path) -> String {
    format!("/lab/{}", source.file_name().unwrap_or_default().to_string_lossy())
}

/// `SRC[:DEST]`.
pub fn file_argument(text: &str) -> (PathBuf, String) {
    match text.split_once(':') {
        Some((source, destination)) => (source.into(), destination.to_owned()),
        None => (text.into(), default_destination(Path::new(text))),
    }
}

/// Copies a file and, where it is a dynamically linked program, its libraries.
fn executable(archive: &mut Archive, source: &Path, destination: &str) -> Result<()> {
    if !source.is_file() {
        return Err(Error::new(format!("{}: no such file to copy into the lab", source.display())));
    }
    archive.copy(destination, source)?;
    for library in programs::libraries(source) {
        archive.copy(&library.to_string_lossy(), &library)?;
    }
    Ok(())
}

fn run_script(lab: &Lab, program: &str) -> String {
    let mut script = String::from("#!/bin/sh\n");
    for (name, value) in super::passed_on().iter().chain(&lab.env) {
        script += &format!("export {name}={}\n", quoted(value));
    }
    script += &format!("cd /lab\nexec {}", quoted(program));
    for arg in &lab.args {
        script += &format!(" {}", quoted(&arg.to_string_lossy()));
    }
    script.push('\n');
    script
}

/// A command line for the shell.
pub fn words(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let mut lab = Lab::new("/x/it's");
        lab.args = vec!["a b".into(), "$HOME".into()];
        lab.env = vec![("FIRECREST_X".to_owned(), "'".to_owned())];
        let script = run_script(&lab, &default_destination(&lab.program));
        assert!(script.contains("export FIRECREST_X=''\\'''\n"), "{script}");
        assert!(script.ends_with("exec '/lab/it'\\''s' 'a b' '$HOME'\n"), "{script}");
    }

    #[test]
    fn file_arguments() {
        assert_eq!(file_argument("/a/b"), (PathBuf::from("/a/b"), "/lab/b".to_owned()));
        assert_eq!(file_argument("/a/b:/c"), (PathBuf::from("/a/b"), "/c".to_owned()));
    }
}
