//! Programs that are measured against one another: all in turn, round after round, so that a machine that slows down slows
//! all of them down. What is measured is the whole process, from before it is spawned to after it is reaped.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::record::{Record, Results};
use crate::error::{Error, Result};
use crate::process;

/// Rounds that are not counted, first.
pub const WARM_UP: usize = 3;

/// Longer than any monitor takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// One program to be measured.
pub struct Contender {
    pub name: String,
    pub words: Vec<String>,
    /// The exit code by which it says that the guest ran and ended.
    pub code: i32,
    needed: bool,
    times: Vec<f64>,
    failure: Option<String>,
}

impl Contender {
    pub fn new(name: &str, words: Vec<String>, code: i32) -> Self {
        Self { name: name.to_owned(), words, code, needed: false, times: Vec::new(), failure: None }
    }

    /// Without its figure there is no benchmark, if that is so.
    pub fn needed(mut self, needed: bool) -> Self {
        self.needed = needed;
        self
    }
}

/// What is measured.
pub struct Measured<'a> {
    pub group: &'a str,
    pub name: &'a str,
    pub conditions: &'a str,
}

/// Measures all contenders.
pub fn run(
    contenders: &mut [Contender],
    runs: usize,
    measured: &Measured,
    results: &mut Results,
) -> Result<()> {
    println!("xtask: bench: {runs} rounds of {} programs", contenders.len());
    for round in 0..runs + WARM_UP {
        for contender in contenders.iter_mut().filter(|contender| contender.failure.is_none()) {
            measure(contender, round >= WARM_UP);
        }
    }
    let Measured { group, name, conditions } = measured;
    for contender in contenders {
        match &contender.failure {
            None => results.push(
                Record::of(group, name, &contender.name, "ms", &contender.times).conditions(conditions),
            ),
            Some(failure) if contender.needed => {
                return Err(Error::new(format!("{} did not run the guest: {failure}", contender.name)));
            }
            Some(failure) => {
                results.remark(format!("{group}: {} did not run the guest: {failure}", contender.name));
            }
        }
    }
    Ok(())
}

fn command(words: &[String]) -> Command {
    let mut command = Command::new(words.first().map_or("", String::as_str));
    command.args(words.iter().skip(1)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn measure(contender: &mut Contender, counted: bool) {
    let from = Instant::now();
    let ended = process::spawn(&mut command(&contender.words)).and_then(|mut child| {
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
