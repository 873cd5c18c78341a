//! A Linux guest with four CPUs that uses its disk, its network and its sockets to the host at the same time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use firecrest_vmm::{Block, BlockEngine, Net, Vsock};
use support::disk::{Disk, MIB};
use support::guest;
use support::net::{HOST, in_a_namespace, tap};
use support::streams::serve_for_ever;

/// For how long, in seconds, unless the variable of that name says otherwise.
const SECONDS: (&str, u64) = ("FIRECREST_ALL_SECONDS", 60);

#[test]
fn everything_at_once() {
    in_a_namespace("everything_at_once", || {
        let seconds = env::var(SECONDS.0).map_or(SECONDS.1, |value| value.parse().unwrap());
        let disk = Disk::empty("all", 128 * MIB);
        tap(2, 1500);
        serve_for_ever(TcpListener::bind((HOST, 7000)).unwrap());
        let socket = env::temp_dir().join(format!("firecrest-{}-all.vsock", std::process::id()));
        let port = socket.with_extension("vsock_7000");
        serve_for_ever(UnixListener::bind(&port).unwrap());

        let guest = guest::start("all", &format!("fc.seconds={seconds}"), |builder| {
            builder
                .vcpus(4)
                .block(Block::file(disk.path()).engine(BlockEngine::IoUring).queues(4))
                .net(Net::tap("tap0").queue_pairs(2))
                .vsock(Vsock::unix(3, &socket))
        });
        guest.finish();
        let _ = fs::remove_file(port);
        disk.assert_clean();
        for work in ["disk_kib", "net_rounds", "vsock_rounds"] {
            println!("{work}: {}", guest.number(work));
            assert!(guest.number(work) > 0, "{work}: the others left it nothing");
        }
    });
}
