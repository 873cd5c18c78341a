use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use vmm_sys_util::tempfile::TempFile;

use super::*;
use crate::block::{Block, BlockEngine};
use crate::testing::{BUFFERS, Driver, Seg, memory};

fn image() -> TempFile {
    let file = TempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    file
}

fn eventfd() -> EventFd {
    EventFd::new(libc::EFD_NONBLOCK).unwrap()
}

/// A ring on a file, or a word on why there is none.
fn ring(test: &str, file: &TempFile) -> Option<Uring> {
    ring_telling(&eventfd(), test, file)
}

fn ring_telling(completed: &EventFd, test: &str, file: &TempFile) -> Option<Uring> {
    Uring::new(file.as_file(), completed)
        .inspect_err(|error| println!("SKIPPED {test}: no io_uring here: {error}"))
        .ok()
}

/// How many rings of this process have this file registered.
fn rings_on(file: &Path) -> usize {
    let name = file.file_name().unwrap().to_str().unwrap();
    let fds = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.ok());
    fds.filter(|fd| {
        fs::read_link(fd.path()).is_ok_and(|link| link.to_string_lossy().contains("io_uring"))
            && fs::read_to_string(Path::new("/proc/self/fdinfo").join(fd.file_name()))
                .is_ok_and(|info| info.contains(name))
    })
    .count()
}

fn flush(driver: &mut Driver) -> u8 {
    driver.put(BUFFERS, &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    driver.put(BUFFERS + 0x1000, &[0xee]);
    driver.request(0, &[Seg::readable(BUFFERS, 16), Seg::writable(BUFFERS + 0x1000, 1)]);
    driver.get(BUFFERS + 0x1000, 1)[0]
}

fn read_first_sector(driver: &mut Driver) -> u8 {
    driver.put(BUFFERS, &[0; 16]);
    driver.put(BUFFERS + 0x1000, &[0xee]);
    let chain = [
        Seg::readable(BUFFERS, 16),
        Seg::writable(BUFFERS + 0x2000, 512),
        Seg::writable(BUFFERS + 0x1000, 1),
    ];
    driver.request(0, &chain);
    driver.get(BUFFERS + 0x1000, 1)[0]
}

#[test]
fn a_ring_is_made_when_the_thread_begins_and_kept() {
    let file = image();
    if ring("a_ring_is_made_when_the_thread_begins_and_kept", &file).is_none() {
        return;
    }
    let block = Block::file(file.as_path()).engine(BlockEngine::IoUring).queues(2);
    let mut driver = Driver::new(block.build().unwrap());
    driver.negotiate(u64::MAX);
    driver.until("a ring for each queue", |_| rings_on(file.as_path()) == 2);
    for _ in 0..3 {
        driver.start(u64::MAX);
        assert_eq!(read_first_sector(&mut driver), 0);
        assert_eq!(rings_on(file.as_path()), 2, "and no others");
    }
    driver.bench.end();
    assert_eq!(rings_on(file.as_path()), 0);
}

#[test]
fn a_ring_does_nothing_but_its_work() {
    let file = image();
    let Some(mut uring) = ring("a_ring_does_nothing_but_its_work", &file) else { return };
    let fd = types::Fd(file.as_file().as_raw_fd());
    let path = c"/etc/passwd";
    let forbidden = [
        opcode::Nop::new().build(),
        opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build(),
        opcode::Close::new(fd).build(),
        opcode::Fsync::new(fd).build(),
        opcode::Readv::new(fd, std::ptr::null(), 0).build(),
        opcode::Fallocate::new(FILE, 1).build(),
        opcode::Fsync::new(FILE).build().flags(Flags::ASYNC),
    ];
    for entry in forbidden {
        let what = format!("{entry:?}");
        assert!(queue(&mut uring.ring, &entry));
        uring.wait().unwrap();
        assert_eq!(uring.ring.completion().next().unwrap().result(), -libc::EACCES, "{what}");
    }
    assert!(queue(&mut uring.ring, &opcode::Fsync::new(FILE).build()));
    uring.wait().unwrap();
    assert_eq!(uring.ring.completion().next().unwrap().result(), 0);
    assert!(uring.ring.submitter().register_files(&[0]).is_err(), "nor is it given other files");
}

#[test]
fn as_many_are_in_flight_as_there_are_slots_and_a_drop_waits_for_them() {
    let file = image();
    let test = "as_many_are_in_flight_as_there_are_slots_and_a_drop_waits_for_them";
    let Some(mut uring) = ring(test, &file) else { return };
    let memory = memory();
    uring.start(Arc::clone(&memory));
    for in_flight in 0..usize::from(QUEUE_SIZE) {
        assert!(uring.has_room());
        assert_eq!(uring.in_flight(), in_flight);
        uring.push(&mut Chain::new(), Request::Flush, false).unwrap();
    }
    assert!(!uring.has_room());
    assert_eq!(uring.push(&mut Chain::new(), Request::Flush, false), Err(Request::Flush));
    uring.submit().unwrap();
    uring.wait().unwrap();
    let first = uring.complete().unwrap();
    assert_eq!((first.request, first.result.unwrap()), (Request::Flush, 0));
    assert!(uring.has_room());
    uring.push(&mut Chain::new(), Request::Read { at: 0, len: 0 }, false).unwrap();
    drop(uring);
    assert_eq!(Arc::strong_count(&memory), 1, "nobody uses it any more");
}

/// Who waits for signals alone learns of all, however many have piled up.
#[test]
fn nothing_that_has_ended_is_forgotten() {
    let file = image();
    let completed = eventfd();
    let Some(mut uring) = ring_telling(&completed, "nothing_that_has_ended_is_forgotten", &file) else {
        return;
    };
    uring.start(memory());
    (0..QUEUE_SIZE).for_each(|_| uring.push(&mut Chain::new(), Request::Flush, false).unwrap());
    uring.submit().unwrap();
    // They pile up meanwhile.
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    while uring.in_flight() > 0 {
        if completed.read().is_ok() {
            uring.submit().unwrap();
            while uring.complete().is_some() {}
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{} without a signal", uring.in_flight());
        std::thread::yield_now();
    }
}

/// What a jail does that knows nothing of rings.
#[test]
fn without_io_uring_system_calls_do() {
    let file = image();
    let path = file.as_path().to_owned();
    // The device's threads inherit the filter.
    let test = std::thread::spawn(move || {
        forbid(libc::SYS_io_uring_setup);
        let error = Uring::new(&File::open(&path).unwrap(), &eventfd()).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        let block = Block::file(&path).engine(BlockEngine::IoUring);
        let mut driver = Driver::new(block.build().unwrap());
        for _ in 0..2 {
            driver.start(u64::MAX);
            assert_eq!(read_first_sector(&mut driver), 0);
            assert_eq!(flush(&mut driver), 0);
        }
        assert_eq!(rings_on(&path), 0);
        driver.bench.end();
    });
    test.join().unwrap();
}

/// A ring that stops working: the device needs a reset, and then works without one.
#[test]
fn a_ring_that_fails_is_given_up() {
    let file = image();
    if ring("a_ring_that_fails_is_given_up", &file).is_none() {
        return;
    }
    let path = file.as_path().to_owned();
    let test = std::thread::spawn(move || {
        forbid(libc::SYS_io_uring_enter);
        let block = Block::file(&path).engine(BlockEngine::IoUring);
        let mut driver = Driver::started(block.build().unwrap());
        driver.put(BUFFERS, &[0; 16]);
        driver.offer(
            0,
            &[Seg::readable(BUFFERS, 16), Seg::writable(BUFFERS + 0x2000, 512), Seg::writable(BUFFERS, 1)],
        );
        driver.kick(0);
        driver.wait_needs_reset();
        driver.start(u64::MAX);
        assert_eq!(read_first_sector(&mut driver), 0);
        driver.bench.end();
    });
    test.join().unwrap();
}

/// Makes a system call fail with EPERM, in this thread and those it starts.
fn forbid(system_call: libc::c_long) {
    let statement = |code: u32, k, jt, jf| {
        let code = u16::try_from(code).unwrap();
        libc::sock_filter { code, jt, jf, k }
    };
    let refuse = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
    let number = u32::try_from(system_call).unwrap();
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, refuse, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program =
        libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_ptr().cast_mut() };
    // SAFETY: takes no pointers.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program and its filter outlive the call, which copies and checks them.
    let filtered = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    assert_eq!((privileges, filtered), (0, 0), "{}", io::Error::last_os_error());
}
