//! Programs of this machine, found by name, and the libraries they need: what is copied to where they have to run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// Where packages put programs, whatever the caller's PATH leaves out.
const SYSTEM: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The file of a program.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(SYSTEM.iter().map(PathBuf::from));
    directories
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Error::new(format!("there is no program {name} here")))
}

/// The libraries of a program and its loader; none where it is not an ELF file, or a static one.
pub fn libraries(program: &Path) -> Vec<PathBuf> {
    // It fails for what is not an ELF file, and lists nothing for a static one.
    let Ok(ldd) = Command::new("ldd").arg(program).output() else { return Vec::new() };
    listed(&String::from_utf8_lossy(&ldd.stdout)).into_iter().map(PathBuf::from).collect()
}

/// The paths in ldd's output: `name => path (address)`, or `path (address)` for the loader.
fn listed(ldd: &str) -> Vec<String> {
    let paths = ldd.lines().filter_map(|line| {
        let (object, _) = line.trim().rsplit_once(" (0x")?;
        let path = object.split_once(" => ").map_or(object, |(_, path)| path);
        path.starts_with('/').then(|| path.to_owned())
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_ldd() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibmissing.so => not found\n";
        assert_eq!(listed(ldd), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(listed("\tstatically linked\n").is_empty());
    }

    #[test]
    fn a_program_is_found() {
        assert!(find("sh").unwrap().ends_with("sh"));
        find("firecrest-no-such-program").unwrap_err();
    }
}
