//! What a machine says on its serial line, followed as it comes: echoed to the user, searched for what is waited for,
//! with the moment at which each milestone passed.

use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// A text whose first appearance is noted.
pub struct Milestone {
    pub name: &'static str,
    pattern: &'static str,
    pub passed: Option<Instant>,
}

/// Everything said so far.
pub struct Transcript {
    chunks: Receiver<Vec<u8>>,
    text: String,
    /// What was waited for lies before this.
    position: usize,
    /// What the user has seen.
    echoed: usize,
    milestones: Vec<Milestone>,
}

impl Transcript {
    pub fn new(chunks: Receiver<Vec<u8>>, milestones: &[(&'static str, &'static str)]) -> Self {
        let milestones =
            milestones.iter().map(|&(name, pattern)| Milestone { name, pattern, passed: None }).collect();
        Self { chunks, text: String::new(), position: 0, echoed: 0, milestones }
    }

    /// Waits until `pattern` is said after what was waited for last.
    pub fn expect(&mut self, pattern: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = self.text[self.position..].find(pattern) {
                self.position += found + pattern.len();
                return Ok(());
            }
            let why = match self.read(deadline) {
                Ok(()) => continue,
                Err(RecvTimeoutError::Timeout) => format!("did not come within {} s", limit.as_secs()),
                Err(RecvTimeoutError::Disconnected) => "never came: the output ended".to_owned(),
            };
            let message = format!("`{}`, which was waited for, {why}", pattern.trim());
            return Err(if why.starts_with("did") { Error::timed_out(message) } else { Error::new(message) });
        }
    }

    /// Follows the output to its end.
    pub fn finish(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            match self.read(deadline) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Error::timed_out(format!(
                        "the output did not end within {} s",
                        limit.as_secs()
                    )));
                }
            }
        }
    }

    pub fn milestones(&self) -> &[Milestone] {
        &self.milestones
    }

    /// The kernel's own time stamp (`[    1.234567]`) on the first line that contains a text.
    pub fn kernel_time(&self, text: &str) -> Option<&str> {
        let line = self.text.lines().find(|line| line.contains(text))?;
        let (_, stamp) = line.split_once('[')?;
        Some(stamp.split_once(']')?.0.trim())
    }

    fn echo(&mut self) {
        let news = &self.text[self.echoed..];
        let news = &news[..complete(news)];
        let mut out = std::io::stdout();
        // The demo is worth finishing even when nobody reads along.
        let _ = out.write_all(news.replace(CURSOR_QUERY, "").as_bytes()).and_then(|()| out.flush());
        self.echoed += news.len();
    }

    fn read(&mut self, deadline: Instant) -> std::result::Result<(), RecvTimeoutError> {
        let chunk = self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
        let now = Instant::now();
        self.text.push_str(&String::from_utf8_lossy(&chunk));
        self.echo();
        for milestone in self.milestones.iter_mut().filter(|milestone| milestone.passed.is_none()) {
            if self.text.contains(milestone.pattern) {
                milestone.passed = Some(now);
            }
        }
        Ok(())
    }
}

/// A shell's question to its terminal, which the user's own would answer: where the cursor is.
const CURSOR_QUERY: &str = "\x1b[6n";

/// How much of a text can be shown: all but an escape sequence that may still become the question.
fn complete(text: &str) -> usize {
    let unfinished = (1..CURSOR_QUERY.len()).rev().find(|&length| text.ends_with(&CURSOR_QUERY[..length]));
    text.len() - unfinished.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    fn transcript(chunks: &[&str]) -> (Transcript, mpsc::Sender<Vec<u8>>) {
        let (sender, receiver) = mpsc::channel();
        for chunk in chunks {
            sender.send(chunk.as_bytes().to_vec()).unwrap();
        }
        (Transcript::new(receiver, &[("prompt", "guest# "), ("never", "nothing")]), sender)
    }

    #[test]
    fn a_pattern_may_come_in_pieces() {
        let (mut transcript, _open) = transcript(&["x gue", "st# ", "y"]);
        transcript.expect("guest# ", SOON).unwrap();
        assert!(transcript.milestones()[0].passed.is_some());
        assert!(transcript.milestones()[1].passed.is_none());
    }

    #[test]
    fn each_wait_is_for_something_new() {
        let (mut transcript, _open) = transcript(&["guest# a guest# b"]);
        transcript.expect("guest# ", SOON).unwrap();
        transcript.expect("guest# ", SOON).unwrap();
        assert_eq!(transcript.expect("guest# ", SOON).unwrap_err().exit_code(), 124);
    }

    #[test]
    fn the_end_ends_a_wait() {
        let (mut transcript, sender) = transcript(&["a"]);
        drop(sender);
        assert_eq!(transcript.expect("b", Duration::from_secs(60)).unwrap_err().exit_code(), 1);
        transcript.finish(SOON).unwrap();
    }

    #[test]
    fn a_question_to_the_terminal_is_held_back_until_it_is_known() {
        assert_eq!(complete("a\x1b["), 1);
        assert_eq!(complete("a\x1b[6"), 1);
        assert_eq!(complete("a\x1b[6n"), 5);
        assert_eq!(complete("a\x1b[0m"), 5);
    }

    #[test]
    fn kernel_times() {
        let (mut transcript, sender) =
            transcript(&["[    0.000000] Linux version\n[    7.98] Run /init as\n"]);
        drop(sender);
        transcript.finish(SOON).unwrap();
        assert_eq!(transcript.kernel_time("Run /init"), Some("7.98"));
        assert_eq!(transcript.kernel_time("no such line"), None);
    }
}
