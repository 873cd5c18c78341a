//! The line by which a program on the host says where it wants to: `CONNECT <port>\n`.
//!
//! What must hold: no byte behind the line is taken from the socket, as it is the guest's; and no more than
//! [`LONGEST`] bytes are kept of a client that never ends its line.

use std::io::{ErrorKind, Read};

/// The shortest line there can be: until it could be complete, more than one byte can be read at once.
const SHORTEST: usize = b"CONNECT 0\n".len();
/// The longest.
const LONGEST: usize = b"CONNECT 4294967294\r\n".len();
/// The port that means any.
const ANY: u32 = u32::MAX;

/// What has been read of a line.
#[derive(Debug, Default)]
pub(super) struct ConnectLine {
    bytes: [u8; LONGEST],
    len: usize,
}

/// How far a line has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineState {
    /// There is more to come.
    Unfinished,
    /// The client wants this port of the guest's.
    Connect(u32),
    /// That was no such line, or the client has gone.
    Bad,
}

impl ConnectLine {
    /// Reads from `stream` what there is, up to the line's end.
    pub fn read_from(&mut self, mut stream: impl Read) -> LineState {
        loop {
            let most = self.len.saturating_add(1).max(SHORTEST);
            let Some(place) = self.bytes.get_mut(self.len..most) else { return LineState::Bad };
            match stream.read(place) {
                Ok(0) => return LineState::Bad,
                Ok(count) => self.len = self.len.saturating_add(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return LineState::Unfinished,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return LineState::Bad,
            }
            let line = self.bytes.get(..self.len).unwrap_or_default();
            if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                // What ends sooner than the shortest line is none, and what was read behind it is no loss.
                let whole = end.saturating_add(1) == self.len;
                return line
                    .get(..end)
                    .filter(|_| whole)
                    .and_then(parse)
                    .map_or(LineState::Bad, LineState::Connect);
            }
        }
    }
}

fn parse(line: &[u8]) -> Option<u32> {
    let (word, port) = line.trim_ascii_end().split_first_chunk::<8>()?;
    if !word.eq_ignore_ascii_case(b"CONNECT ") || !port.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(port).ok()?.parse().ok().filter(|port| *port != ANY)
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
