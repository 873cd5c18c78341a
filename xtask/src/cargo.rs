//! Running cargo, and finding what it built.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::process;

/// The root of the checkout this tool was built from.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo puts what it builds.
pub fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Cargo at the root of the checkout, without the variables the outer cargo set for this process.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    for (name, _) in env::vars_os() {
        let outer = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO"
        });
        if outer {
            command.env_remove(name);
        }
    }
    command
}

/// An executable cargo built.
pub struct Executable {
    /// The target's name: a test file's stem, or a program's name.
    pub target: String,
    pub path: PathBuf,
}

/// Builds with the given arguments (`["test", "--no-run", ...]`) and returns the executables that came of it.
pub fn executables(args: &[&str]) -> Result<Vec<Executable>> {
    let mut command = cargo();
    command.args(args).arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let messages = process::output(&mut command)?;
    Ok(messages.lines().filter_map(executable).collect())
}

/// The program as users have it: `firecrest`, built for release.
pub fn release_program() -> Result<PathBuf> {
    path_of(&executables(&["build", "--release", "--package", "firecrest"])?, "firecrest")
}

/// The program that runs many microVMs in one process (`benches/many`), built for release.
pub fn many_program() -> Result<PathBuf> {
    path_of(&executables(&["build", "--release", "--package", "firecrest", "--example", "many"])?, "many")
}

/// The path of one executable of a build.
pub fn path_of(executables: &[Executable], target: &str) -> Result<PathBuf> {
    let found = executables.iter().find(|executable| executable.target == target);
    found
        .map(|executable| executable.path.clone())
        .ok_or_else(|| Error::new(format!("cargo built no `{target}`")))
}

/// The executable a line of cargo's JSON messages names, if it is such a line.
fn executable(message: &str) -> Option<Executable> {
    if !message.contains(r#""reason":"compiler-artifact""#) {
        return None;
    }
    let path = PathBuf::from(string_after(message, r#""executable":"#)?);
    let target = string_after(message.split_once(r#""target":{"#)?.1, r#""name":"#)?;
    Some(Executable { target, path })
}

/// The JSON string that follows a key; `None` when another kind of value does.
fn string_after(json: &str, key: &str) -> Option<String> {
    let mut characters = json.split_once(key)?.1.strip_prefix('"')?.chars();
    let mut value = String::new();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            // Paths hold no control characters, so an escape is a quote, a slash or a backslash.
            '\\' => value.push(characters.next()?),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_is_found() {
        let line = r#"{"reason":"compiler-artifact","package_id":"p","target":{"kind":["test"],"name":"tiny","src_path":"/w/tests/tiny.rs"},"filenames":["/t/tiny-1"],"executable":"/t/a \"b\"/tiny-1","fresh":true}"#;
        let found = executable(line).unwrap();
        assert_eq!(found.target, "tiny");
        assert_eq!(found.path, Path::new("/t/a \"b\"/tiny-1"));
    }

    #[test]
    fn other_messages_are_not_executables() {
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":null,"fresh":true}"#;
        assert!(executable(library).is_none());
        assert!(executable(r#"{"reason":"build-finished","success":true}"#).is_none());
    }
}
