//! Devices on the command line: every option reaches the guest, every mistake is told by name.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::io::Read;
use std::process::Stdio;

use support::program::{Started, firecrest, program};
use support::{Scratch, elf, guests};

fn kernel(name: &str, code: &[u8]) -> Scratch {
    Scratch::file(name, &elf::pvh_kernel(code))
}

fn path(file: &Scratch) -> &str {
    file.as_ref().to_str().unwrap()
}

/// What the program says of a mistake, and how it ends.
fn refused(name: &str, args: &[&str]) -> (Option<i32>, String) {
    let kernel = kernel(name, guests::virtio_ids());
    let output = firecrest(&[&["run", "--kernel", path(&kernel)], args].concat());
    assert!(output.stdout.is_empty(), "nothing was started");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn mistakes_in_an_option_are_named() {
    for (args, complaint) in [
        (["--block", ""], "--block : give path=FILE"),
        (["--block", "ro"], "--block ro: give path=FILE"),
        (["--block", "path="], "--block path=: path needs a value"),
        (["--block", "path=x,speed=9"], "--block path=x,speed=9: there is no `speed`"),
        (["--block", "path=x,queues=many"], "queues: `many` is not a number it can take"),
        (["--block", "path=x,queues=-1"], "queues: `-1` is not a number it can take"),
        (["--block", "path=x,iops="], "iops: `` is not a number it can take"),
        (["--block", "path=x,engine=fast"], "engine: give sync or io_uring"),
        (["--block", "path=x,cache=none"], "cache: give writeback or writethrough"),
        (["--net", "mac=02:00:00:00:00:01"], "give tap=NAME"),
        (["--net", "tap=t,mac=02:00:00:00:00"], "mac: give six bytes, as 02:00:00:00:00:01"),
        (["--net", "tap=t,mac=02:00:00:00:00:00:00"], "mac: give six bytes"),
        (["--net", "tap=t,mac=0g:00:00:00:00:00"], "mac: give six bytes"),
        (["--net", "tap=t,mtu=70000"], "mtu: `70000` is not a number it can take"),
        (["--vsock", "cid=3"], "give cid=N and path=SOCKET"),
        (["--vsock", "path=/x"], "give cid=N and path=SOCKET"),
        (["--vsock", "cid=three,path=/x"], "cid: `three` is not a number it can take"),
    ] {
        let (status, text) = refused("cli-mistakes", &args);
        assert_eq!(status, Some(2), "{args:?}: {text}");
        assert!(text.contains(complaint), "{args:?}: {text}");
    }
}

#[test]
fn what_a_device_cannot_be_is_told_before_anything_starts() {
    let disk = Scratch::file("cli-bad-disk", &[0; 4096]);
    let short = Scratch::file("cli-short-disk", &[0; 100]);
    let (disk, short) = (path(&disk), path(&short));
    for (option, value, complaints) in [
        ("--block", "path=/nonexistent/disk".to_owned(), vec!["/nonexistent/disk"]),
        ("--block", "path=/dev/null".to_owned(), vec!["/dev/null"]),
        ("--block", format!("path={short}"), vec![short, "100"]),
        ("--block", format!("path={disk},queues=0"), vec!["0"]),
        ("--block", format!("path={disk},block-size=1024"), vec!["1024"]),
        (
            "--block",
            format!("path={disk},serial=this one has more than 20"),
            vec!["this one has more than 20"],
        ),
        ("--block", format!("path={disk},iops=0"), vec!["operations"]),
        ("--net", "tap=a-name-that-is-too-long".to_owned(), vec!["a-name-that-is-too-long"]),
        ("--net", "tap=fctest0,mtu=20".to_owned(), vec!["20"]),
        ("--net", "tap=fctest0,mac=01:00:00:00:00:00".to_owned(), vec!["01:00:00:00:00:00"]),
        ("--net", "tap=fctest0,pairs=99".to_owned(), vec!["99"]),
        ("--vsock", "cid=2,path=/tmp/x".to_owned(), vec!["2"]),
        ("--vsock", format!("cid=3,path={disk}"), vec![disk]),
        ("--vsock", format!("cid=3,path=/tmp/{}", "x".repeat(200)), vec!["xxxx"]),
        ("--vsock", "cid=3,path=/nonexistent/v.sock".to_owned(), vec!["/nonexistent/v.sock"]),
    ] {
        let (status, text) = refused("cli-refused", &[option, &value]);
        assert_eq!(status, Some(1), "{value}: {text}");
        for complaint in complaints {
            assert!(text.contains(complaint), "{value}: {complaint} in {text}");
        }
    }
}

#[test]
fn a_disk_belongs_to_one_guest() {
    let disk = Scratch::file("cli-locked", &[0; 4096]);
    let spinning = kernel("cli-locked-kernel", guests::virtio_config_change());
    let run = |options: &str| {
        let mut command = program();
        command.args(["run", "--memory", "32", "--kernel", path(&spinning), "--block"]);
        command.arg(format!("path={}{options}", path(&disk))).stdout(Stdio::piped()).stderr(Stdio::piped());
        Started::new(&mut command)
    };
    let mut first = run("");
    first.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    for options in ["", ",ro"] {
        let mut second = run(options);
        assert_eq!(second.end().code(), Some(1));
        let mut text = String::new();
        second.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains("in use") || text.contains("locked"), "{text}");
        assert!(text.contains(path(&disk)), "{text}");
    }
    drop(first);
    // Readers share.
    let (mut one, mut other) = (run(",ro"), run(",ro"));
    for reader in [&mut one, &mut other] {
        reader.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn devices_appear_in_the_order_of_the_options() {
    let disk = Scratch::file("cli-order", &[0; 4096]);
    let kernel = kernel("cli-order-kernel", guests::virtio_ids());
    let socket = std::env::temp_dir().join(format!("firecrest-cli-order-{}", std::process::id()));
    let vsock = format!("cid=7,path={}", socket.display());
    let block = format!(
        "path={},ro,serial=a b,engine=io_uring,queues=2,block-size=4096,cache=writethrough,bandwidth=1000000,iops=100",
        path(&disk)
    );
    let output = firecrest(&[
        "run",
        "--memory",
        "32",
        "--vsock",
        &vsock,
        "--kernel",
        path(&kernel),
        "--block",
        &block,
        "--block",
        &block,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout[..4], [19, 2, 2, 0xff]);
    assert!(!socket.exists(), "the socket is removed");
}

#[test]
fn a_disk_that_has_grown_is_told_to_the_guest_on_request() {
    let disk = Scratch::file("cli-growing", &[0; 4096]);
    let kernel = kernel("cli-growing-kernel", guests::virtio_config_change());
    let mut command = program();
    command.args(["run", "--memory", "32", "--kernel", path(&kernel)]);
    command.args(["--block", &format!("path={}", path(&disk))]).stdout(Stdio::piped());
    let mut child = Started::new(&mut command);
    child.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    std::fs::OpenOptions::new().write(true).open(disk.as_ref()).unwrap().set_len(1 << 20).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!child.has_ended(), "nobody has looked yet");
    child.send(libc::SIGUSR1);
    assert_eq!(child.end().code(), Some(0), "the guest saw the change");
}
