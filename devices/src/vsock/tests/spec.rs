//! What a caller can say wrongly, and what is left of the socket.

use std::os::unix::net::{UnixListener, UnixStream};

use super::*;
use crate::testing::Driver;
use crate::vsock::VsockError;

#[test]
fn the_guest_reads_its_address_and_no_features() {
    let place = Place::new();
    let mut driver = Driver::new(place.vsock().build().unwrap());
    assert_eq!(driver.config(0, 8), u64::from(CID).to_le_bytes());
    assert_eq!(driver.offered() & 0xff_ffff, 0);
    assert_eq!(driver.read(0x008), 19);
    driver.bench.end();
}

#[test]
fn addresses_that_no_guest_has_are_refused() {
    let place = Place::new();
    for cid in [0, 1, 2, u32::MAX] {
        let error = Vsock::unix(cid, place.path()).build().unwrap_err();
        assert!(matches!(error, VsockError::Cid { cid: said } if said == cid));
        assert!(error.to_string().contains(&cid.to_string()), "{error}");
    }
    for cid in [3, 0xffff_fffe] {
        Vsock::unix(cid, place.path()).build().unwrap();
        assert!(!exists(&place.path()), "a device that is dropped takes its socket along");
    }
}

#[test]
fn numbers_of_connections_have_bounds() {
    let place = Place::new();
    for connections in [0, 4096] {
        let error = place.vsock().connections(connections).build().unwrap_err();
        assert!(matches!(error, VsockError::Connections { .. }), "{error}");
    }
    place.vsock().connections(4095).build().unwrap();
}

#[test]
fn what_exists_is_named_and_left_alone() {
    let place = Place::new();
    let somebodys = UnixListener::bind(place.path()).unwrap();
    let error = place.vsock().build().unwrap_err();
    assert!(matches!(&error, VsockError::PathExists { path } if *path == place.path()));
    assert!(error.to_string().contains("v.sock"), "{error}");
    UnixStream::connect(place.path()).unwrap();
    drop(somebodys);
}

#[test]
fn what_replaced_the_socket_is_left_alone() {
    let place = Place::new();
    let device = place.vsock().build().unwrap();
    std::fs::remove_file(place.path()).unwrap();
    std::fs::write(place.path(), "somebody's").unwrap();
    drop(device);
    assert_eq!(std::fs::read(place.path()).unwrap(), b"somebody's");
}

#[test]
fn paths_leave_room_for_a_port() {
    let place = Place::new();
    let folder = place.folder.as_path().as_os_str().len();
    let named = |len: usize| place.folder.as_path().join("n".repeat(len - folder - 1));
    let error = Vsock::unix(CID, named(97)).build().unwrap_err();
    assert!(matches!(error, VsockError::PathTooLong { most: 96, .. }), "{error}");
    Vsock::unix(CID, named(96)).build().unwrap();
    // The longest name there can be is one that can be listened at.
    let mut longest = named(96).into_os_string();
    longest.push("_4294967295");
    UnixListener::bind(longest).unwrap();
}

#[test]
fn paths_that_cannot_be_are_refused() {
    assert!(matches!(Vsock::unix(CID, "").build(), Err(VsockError::NoPath)));
    let place = Place::new();
    let missing = place.folder.as_path().join("missing/v.sock");
    let error = Vsock::unix(CID, &missing).build().unwrap_err();
    assert!(matches!(&error, VsockError::Listen { path, source }
        if *path == missing && source.kind() == io::ErrorKind::NotFound));
    let error = Vsock::unix(CID, "/tmp/a\0b").build().unwrap_err();
    assert!(matches!(&error, VsockError::Listen { .. }), "{error}");
}
