//! Running other programs: errors that name the command, and children that do not outlive this process.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Runs a command to its end with this process's output streams; an exit code other than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().map_err(|error| cannot_start(command, &error))?;
    check(command, status)
}

/// Runs a command to its end and returns what it wrote to its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| cannot_start(command, &error))?;
    check(command, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a command that the caller waits for.
pub fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|error| cannot_start(command, &error))
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() { Ok(()) } else { Err(Error::new(format!("`{}`: {status}", line(command)))) }
}

fn cannot_start(command: &Command, error: &io::Error) -> Error {
    Error::new(format!("cannot start `{}`: {error}", line(command)))
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// A command whose process the kernel kills when the thread that starts it ends, however that comes about: a lab
/// would otherwise go on using two CPUs for nobody.
pub fn dies_with_us(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Writes a script that can be run; `text` begins with its interpreter.
pub fn write_script(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let written = std::fs::write(path, text)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)));
    written.map_err(|error| Error::io("write", path, &error))
}

/// The exit code a shell would report.
pub fn shell_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Waits for a child, but not for longer than `limit`: then it is killed and `None` returned.
pub fn wait_limited(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        let ended =
            child.try_wait().map_err(|error| Error::new(format!("cannot wait for a child: {error}")))?;
        if let Some(status) = ended {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            kill(child);
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Kills a child and takes its exit status, so that no zombie is left.
pub fn kill(child: &mut Child) {
    // It may have ended by itself in between; either way it is gone after the wait.
    let _ = child.kill();
    let _ = child.wait();
}

/// A child's output as it comes, read by a thread so that the reader can stop waiting.
pub fn chunks(mut output: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match output.read(&mut buffer) {
                Ok(length) if length > 0 && sender.send(buffer[..length].to_vec()).is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    });
    receiver
}

/// Hands a child's output to `each` as it comes, for `limit` at most. True when the output ended by itself.
pub fn each_chunk(output: impl Read + Send + 'static, limit: Duration, each: impl FnMut(&[u8])) -> bool {
    each_chunk_while(output, limit, || true, each)
}

fn each_chunk_while(
    output: impl Read + Send + 'static,
    limit: Duration,
    mut go_on: impl FnMut() -> bool,
    mut each: impl FnMut(&[u8]),
) -> bool {
    let receiver = chunks(output);
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left.min(Duration::from_secs(1))) {
            Ok(chunk) => each(&chunk),
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) if !left.is_zero() && go_on() => {}
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// As [`each_chunk`], by lines.
pub fn each_line(output: impl Read + Send + 'static, limit: Duration, each: impl FnMut(&str)) -> bool {
    each_line_while(output, limit, || true, each)
}

/// As [`each_line`], for as long as `go_on` says so; it is asked about once a second.
pub fn each_line_while(
    output: impl Read + Send + 'static,
    limit: Duration,
    go_on: impl FnMut() -> bool,
    mut each: impl FnMut(&str),
) -> bool {
    let mut rest = Vec::new();
    let mut line = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        each(text.trim_end_matches(['\n', '\r']));
    };
    let ended = each_chunk_while(output, limit, go_on, |chunk| {
        rest.extend_from_slice(chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let rest_of_it = rest.split_off(end + 1);
            line(&rest);
            rest = rest_of_it;
        }
    });
    if !rest.is_empty() {
        line(&rest);
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3`: exit status: 3");
    }

    #[test]
    fn a_signal_counts_as_in_a_shell() {
        let status = Command::new("sh").args(["-c", "kill -9 $$"]).status().unwrap();
        assert_eq!(shell_code(status), 137);
    }

    #[test]
    fn waiting_has_an_end() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(wait_limited(&mut child, Duration::from_millis(50)).unwrap(), None);
    }

    #[test]
    fn lines_arrive_whole() {
        let mut lines = Vec::new();
        let ended =
            each_line(&b"one\r\ntwo\nlast"[..], Duration::from_secs(5), |line| lines.push(line.to_owned()));
        assert!(ended);
        assert_eq!(lines, ["one", "two", "last"]);
    }
}
