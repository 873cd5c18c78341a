//! What the devices under test have on the host's side: files of this process, made once and left for the next input.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("firecrest-fuzz-{}-{name}", std::process::id()))
}

/// A disk of 1 MiB.
pub fn disk() -> PathBuf {
    let path = path("disk");
    if !path.exists() {
        File::create(&path).and_then(|file| file.set_len(1 << 20)).expect("room for 1 MiB");
    }
    path
}

/// A path for a socket.
pub fn socket() -> PathBuf {
    path("socket")
}

/// The host's end of a link and the card's, with frames of several lengths on their way to the card.
pub fn frames() -> (UnixDatagram, UnixDatagram) {
    let (host, card) = UnixDatagram::pair().expect("two descriptors");
    for len in [100, 1526, 9000] {
        host.send(&vec![0x5a; len]).expect("room for three frames");
    }
    (host, card)
}
