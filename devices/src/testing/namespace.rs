//! The host's side of a TAP interface, for tests: a network namespace, and frames that come and go there.
#![allow(unsafe_code, reason = "sockets that std does not have")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::ptr_as_ptr,
    reason = "tests"
)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, panic, thread};

/// The header of a frame on a packet socket: without the number of buffers.
pub const VNET_HEADER_LEN: usize = 10;
const LONG: Duration = Duration::from_secs(20);

/// Runs `test` in a network namespace of its own, where there are TAP interfaces.
pub fn in_namespace(name: &str, test: impl FnOnce() + Send) {
    if !Path::new("/dev/net/tun").exists() || File::open("/dev/net/tun").is_err() {
        println!("SKIPPED {name}: /dev/net/tun cannot be opened");
        return;
    }
    let run = move || {
        // SAFETY: no memory is passed; the thread is on its own from here on.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            println!("SKIPPED {name}: no network namespace: {}", io::Error::last_os_error());
            return;
        }
        // Or else the host sends of its own when an interface comes up.
        let _: io::Result<()> = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        test();
    };
    let result = thread::scope(|scope| scope.spawn(run).join());
    if let Err(panic) = result {
        panic::resume_unwind(panic);
    }
}

/// An interface, from the host's side.
pub struct Interface {
    index: u32,
    send: File,
    receive: File,
    netlink: File,
}

impl Interface {
    /// The interface of this name; it is brought up.
    pub fn up(name: &str) -> Self {
        let name = std::ffi::CString::new(name).unwrap();
        // SAFETY: a string that ends.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "{name:?}: {}", io::Error::last_os_error());
        let interface = Self {
            index,
            send: packet_socket(index, 0),
            receive: packet_socket(index, libc::ETH_P_ALL as u16),
            netlink: socket(libc::AF_NETLINK, libc::NETLINK_ROUTE),
        };
        interface.set_up(true);
        interface
    }

    pub fn set_up(&self, up: bool) {
        let flag = libc::IFF_UP as u32;
        self.change(libc::RTM_NEWLINK, if up { flag } else { 0 }, flag);
    }

    pub fn delete(&self) {
        self.change(libc::RTM_DELLINK, 0, 0);
    }

    /// `struct nlmsghdr`, `struct ifinfomsg`.
    fn change(&self, kind: u16, flags: u32, mask: u32) {
        let request = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut message = Vec::new();
        message.extend(32_u32.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(request.to_ne_bytes());
        message.extend([0; 12]);
        for word in [self.index, flags, mask] {
            message.extend(word.to_ne_bytes());
        }
        (&self.netlink).write_all(&message).unwrap();
        let mut answer = [0; 128];
        let len = (&self.netlink).read(&mut answer).unwrap();
        assert!(len >= 20 && answer[16..20] == [0; 4], "netlink refuses: {:?}", &answer[..len]);
    }

    /// Sends a frame with its header out on the interface, to whoever holds the TAP.
    pub fn send(&self, header: [u8; VNET_HEADER_LEN], frame: &[u8]) -> io::Result<()> {
        let bytes = [&header, frame].concat();
        (&self.send).write(&bytes).map(|len| assert_eq!(len, bytes.len()))
    }

    /// The next frame that came in on the interface, with its header.
    pub fn receive(&self) -> (Vec<u8>, Vec<u8>) {
        let start = Instant::now();
        let mut bytes = vec![0; 1 << 17];
        loop {
            match (&self.receive).read(&mut bytes) {
                Ok(len) => {
                    let (header, frame) = bytes[..len].split_at(VNET_HEADER_LEN);
                    return (header.to_vec(), frame.to_vec());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(start.elapsed() < LONG, "waited for a frame");
                    thread::yield_now();
                }
                // It reports once that the interface went down.
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN), "{error}"),
            }
        }
    }
}

fn socket(family: i32, protocol: i32) -> File {
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: a descriptor that is nobody else's.
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A packet socket on one interface, whose frames have headers. With protocol 0 it receives none.
fn packet_socket(index: u32, protocol: u16) -> File {
    const PACKET_IGNORE_OUTGOING: i32 = 23;
    let socket = socket(libc::AF_PACKET, 0);
    let one = 1_i32;
    for option in [libc::PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING] {
        // SAFETY: these options take an int.
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const one).cast(), 4)
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
    // SAFETY: all zero is a `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index as i32;
    let len = size_of_val(&address) as u32;
    // SAFETY: the address is as long as is said; F_SETFL takes a number.
    let result = unsafe {
        let bound = libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len);
        bound
            | if protocol != 0 { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } else { 0 }
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    socket
}
