#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::net::UnixStream;
use std::{env, fs, process, thread};

use super::exchange::{Order, When, call, serve};
use super::*;

#[test]
fn parts_are_parts_of_the_whole() {
    let mut whole = [0; 100];
    Pattern::new(7).fill(0, &mut whole);
    for (offset, length) in [(0, 1), (3, 2), (3, 40), (8, 8), (15, 80)] {
        let mut part = vec![0; length];
        Pattern::new(7).fill(offset as u64, &mut part);
        assert_eq!(part, whole[offset..offset + length]);
    }
}

#[test]
fn a_wrong_byte_is_named() {
    let path = env::temp_dir().join(format!("firecrest-pattern-{}", process::id()));
    let pattern = Pattern::new(1);
    pattern.write(&path, 0x1000, 0x20000).unwrap();
    pattern.check(&path, 0x1000, 0x20000).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[0x11234] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = pattern.check(&path, 0x1000, 0x20000).unwrap_err();
    fs::remove_file(&path).unwrap();
    assert!(error.to_string().contains("0x11234"), "{error}");
}

#[test]
fn an_exchange_is_seen_from_both_ends() {
    for when in [When::AtOnce, When::AfterEof] {
        let order = Order { seed: 5, send: 1 << 20, reply: 3 << 20, when };
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(|| serve(theirs));
        call(ours, order).unwrap();
        assert_eq!(server.join().unwrap().unwrap(), order);
    }
}

#[test]
fn a_stream_cut_short_fails_on_both_ends() {
    let order = Order { seed: 5, send: 1 << 20, reply: 1 << 20, when: When::AtOnce };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let cut = theirs.try_clone().unwrap();
    let server = thread::spawn(|| serve(theirs));
    cut.shutdown(std::net::Shutdown::Both).unwrap();
    call(ours, order).unwrap_err();
    server.join().unwrap().unwrap_err();
}
