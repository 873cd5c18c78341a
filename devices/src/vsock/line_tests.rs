//! The `CONNECT` line, in pieces of any size. What clients see of it is tested with the broker.
#![allow(clippy::arithmetic_side_effects, reason = "tests")]

use std::io;

use super::*;

/// Gives bytes as they come, and says where it was left.
struct Pieces<'a> {
    bytes: &'a [u8],
    available: usize,
}

impl Read for &mut Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.available == 0 {
            return if self.bytes.is_empty() { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let count = to.len().min(self.available);
        let (now, later) = self.bytes.split_at(count);
        to[..count].copy_from_slice(now);
        (self.bytes, self.available) = (later, self.available - count);
        Ok(count)
    }
}

#[test]
fn nothing_behind_the_line_is_taken() {
    for (line, port) in [("CONNECT 1\n", 1), ("CONNECT 52\n", 52), ("connect 4294967294\r\n", 4_294_967_294)]
    {
        let whole = format!("{line}data\n");
        for step in 1..=whole.len() {
            let mut pieces = Pieces { bytes: whole.as_bytes(), available: 0 };
            let mut reads = ConnectLine::default();
            let state = loop {
                pieces.available = step.min(pieces.bytes.len());
                match reads.read_from(&mut pieces) {
                    LineState::Unfinished => {}
                    state => break state,
                }
            };
            assert_eq!((state, pieces.bytes), (LineState::Connect(port), b"data\n".as_slice()));
        }
    }
}

#[test]
fn a_client_that_never_ends_its_line_is_not_kept() {
    let bytes = [b'C'; 100];
    let mut pieces = Pieces { bytes: &bytes, available: 100 };
    assert_eq!(ConnectLine::default().read_from(&mut pieces), LineState::Bad);
    assert_eq!(pieces.bytes.len(), 100 - LONGEST);
    let mut pieces = Pieces { bytes: b"", available: 0 };
    assert_eq!(ConnectLine::default().read_from(&mut pieces), LineState::Bad, "one that is gone");
}
