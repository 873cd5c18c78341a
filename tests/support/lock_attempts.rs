//! What a locked process can still do, tried inside one: a process of the test's own.

use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use firecrest_seccomp::{Jail, Role, Work, spawn};
use firecrest_vmm::lock::{self, Lock, LockError};

use super::locked::{Directory, NOBODY, as_nobody, copy_program, status};

/// The variable that names what a process of the test's own is to try.
const ATTEMPT: &str = "FIRECREST_TEST_LOCK";

/// Tries something in a process of its own, which may have one thread alone: the test `one_attempt` of the same
/// program.
pub fn attempt(what: &str, nobody: bool) -> Output {
    let directory = Directory::new(&format!("attempt-{what}-{nobody}"));
    let own = directory.join("test");
    copy_program(&env::current_exe().unwrap(), &own);
    let mut command = Command::new(own);
    command.args(["--exact", "one_attempt", "--nocapture", "--test-threads=1"]).env(ATTEMPT, what);
    command.env("TMPDIR", &directory.0).current_dir(&directory.0).stdin(Stdio::null());
    if nobody {
        as_nobody(&mut command, &directory);
    }
    command.output().unwrap()
}

/// Asserts that it went well, and says what it skipped.
pub fn succeeds(what: &str, nobody: bool) {
    let output = attempt(what, nobody);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{said}", output.status);
    for line in said.lines().filter_map(|line| line.find("SKIPPED").map(|at| &line[at..])) {
        println!("{line}");
    }
}

/// What the test `one_attempt` does: nothing, unless it has been started by [`attempt`].
///
/// The harness has a thread beside its test's: the attempt is made in a child, which has one.
pub fn one_attempt() {
    let Ok(what) = env::var(ATTEMPT) else { return };
    // SAFETY: the harness's other thread waits for this one, and holds nothing that the child needs.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let result = std::panic::catch_unwind(|| try_it(&what));
        std::process::exit(if result.is_ok() { 0 } else { 101 });
    }
    let mut status = 0;
    // SAFETY: a child of ours, and room for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    std::process::exit(code);
}

fn try_it(what: &str) {
    match what {
        "landlock" => landlock(),
        "root" => empty_root(),
        "threads" => second_thread(),
        "rights" => rights(),
        "descriptors" => descriptors(),
        "strict" => strict(),
        "pid" => pid_namespace(),
        "violation" => violation(),
        "orphan" => orphan(),
        "socket" => socket(),
        what => panic!("{what}"),
    }
}

fn here() -> PathBuf {
    env::current_dir().unwrap()
}

/// Two directories with a socket and a file in each.
struct Places {
    kept: PathBuf,
    other: PathBuf,
    listeners: [UnixListener; 2],
}

impl Places {
    fn new() -> Self {
        let make = |name: &str| {
            let directory = here().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("file"), name).unwrap();
            let listener = UnixListener::bind(directory.join("socket")).unwrap();
            (directory, listener)
        };
        let ((kept, one), (other, two)) = (make("kept"), make("other"));
        Self { kept, other, listeners: [one, two] }
    }
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

const DENIED: Option<ErrorKind> = Some(ErrorKind::PermissionDenied);

fn landlock() {
    let Ok(abi) = lock::landlock_abi() else {
        println!("SKIPPED landlock: this kernel has none");
        return;
    };
    println!("Landlock ABI {abi}");
    let places = Places::new();
    let mut open = File::options().read(true).write(true).open(places.other.join("file")).unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0");
    let name = SocketAddr::from_abstract_name(format!("firecrest-{}", std::process::id())).unwrap();
    let by_name = UnixListener::bind_addr(&name).unwrap();
    // SAFETY: takes nothing and cannot fail.
    let parent = i64::from(unsafe { libc::getppid() });
    let report = Lock::new().keep_socket(places.kept.join("socket")).begin().unwrap().apply().unwrap();
    assert!(report.done().any(|measure| measure == "Landlock"), "{report:?}");

    for directory in [&places.kept, &places.other] {
        assert_eq!(kind(File::open(directory.join("file"))), DENIED);
        assert_eq!(kind(File::options().write(true).open(directory.join("file"))), DENIED);
        assert_eq!(kind(File::create(directory.join("new"))), DENIED);
        assert_eq!(kind(fs::read_dir(directory)), DENIED);
        assert_eq!(kind(fs::create_dir(directory.join("new"))), DENIED);
        assert_eq!(kind(UnixListener::bind(directory.join("new"))), DENIED);
        let moved = fs::rename(directory.join("file"), here().join("moved"));
        assert!(moved.is_err(), "renamed");
    }
    for path in ["/etc/passwd", "/proc/self/status", "/dev/kvm", "/"] {
        assert_eq!(kind(File::open(path)), DENIED, "{path}");
    }
    assert_eq!(kind(Command::new("/bin/true").status()), DENIED);
    // What is open stays so, and so does what is kept.
    open.write_all(b"still").unwrap();
    open.set_len(3).unwrap();
    open.read_to_end(&mut Vec::new()).unwrap();
    UnixStream::connect(places.kept.join("socket")).unwrap();
    assert_eq!(kind(fs::remove_file(places.other.join("file"))), DENIED);
    fs::remove_file(places.kept.join("socket")).unwrap();
    if abi >= 9 {
        assert_eq!(kind(UnixStream::connect(places.other.join("socket"))), DENIED);
    }
    if let (true, Ok(tcp)) = (abi >= 4, tcp) {
        assert_eq!(kind(TcpStream::connect(tcp.local_addr().unwrap())), DENIED);
        assert_eq!(kind(std::net::TcpListener::bind("127.0.0.1:0")), DENIED);
    }
    // Before this version, neither is denied.
    let (connected, signalled) = (UnixStream::connect_addr(&name), call(libc::SYS_kill, [parent, 0, 0]));
    let denied = if abi >= 6 { DENIED } else { None };
    assert_eq!((kind(connected), kind(signalled)), (denied, denied));
    drop((places.listeners, by_name));
}

fn empty_root() {
    let places = Places::new();
    let from_outside = fs::metadata(places.kept.join("file")).unwrap();
    // One by its whole name, and one from here.
    fs::create_dir("relative").unwrap();
    let relative = UnixListener::bind("relative/socket").unwrap();
    let lock =
        Lock::new().namespaces().keep_socket(places.kept.join("socket")).keep_socket("relative/socket");
    let report = lock.begin().unwrap().apply().unwrap();
    assert!(report.done().any(|measure| measure.contains("empty root")), "{report:?}");

    // Looking at a name is what Landlock allows everywhere: it is the root that has none.
    let gone = Some(ErrorKind::NotFound);
    for path in ["/etc", "/proc", "/dev", "/bin/true", "/root"] {
        assert_eq!(kind(fs::metadata(path)), gone, "{path}");
    }
    assert_eq!(kind(fs::metadata(&places.other)), gone);
    assert_eq!(kind(UnixStream::connect(places.other.join("socket"))), gone);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(places.kept.join("file")).unwrap().ino(), from_outside.ino());
    UnixStream::connect(places.kept.join("socket")).unwrap();
    UnixStream::connect("relative/socket").unwrap();
    UnixStream::connect(here().join("relative/socket")).unwrap();
    assert_eq!(kind(fs::create_dir("/new")), Some(ErrorKind::ReadOnlyFilesystem));
    fs::remove_file("relative/socket").unwrap();
    fs::remove_file(places.kept.join("socket")).unwrap();
    // A way out by `..`, by a namespace, by another root?
    assert_eq!(kind(fs::metadata("/../etc")), gone);
    assert_eq!(kind(fs::metadata("/../../etc")), gone);
    assert!(call(libc::SYS_unshare, [c_long(libc::CLONE_NEWUSER), 0, 0]).is_err());
    assert!(call(libc::SYS_unshare, [c_long(libc::CLONE_NEWNS), 0, 0]).is_err());
    assert!(call(libc::SYS_chroot, [c".".as_ptr().addr().cast_signed() as i64, 0, 0]).is_err());
    // Nobody is connected to anything.
    assert!(
        TcpStream::connect("127.0.0.1:1").is_err_and(|error| error.kind() != ErrorKind::ConnectionRefused)
    );
    drop((places.listeners, relative));
}

fn c_long(flags: libc::c_int) -> i64 {
    flags.into()
}

fn call(number: libc::c_long, [a, b, c]: [i64; 3]) -> io::Result<i64> {
    // SAFETY: the arguments are numbers, or strings that end; what is called is to be refused.
    match unsafe { libc::syscall(number, a, b, c) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

fn second_thread() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let begun = Lock::new().begin().unwrap();
    let thread = std::thread::spawn(move || receiver.recv());
    let count = |error: LockError| match error {
        LockError::Threads { count } => count,
        error => panic!("{error}"),
    };
    assert_eq!(count(Lock::new().begin().err().unwrap()), 2);
    assert_eq!(count(begun.apply().unwrap_err()), 2);
    // Nothing was done.
    assert_eq!(status("/proc/self/status")["NoNewPrivs"], "0");
    drop(sender);
    thread.join().unwrap().unwrap_err();
}

/// That a thread started afterwards is bound by it.
fn rights() {
    let mut watch = File::open("/proc/self/status").unwrap();
    let report = Lock::new().begin().unwrap().apply().unwrap();
    let mut text = String::new();
    watch.read_to_string(&mut text).unwrap();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    let emptied = field("CapBnd:") == "0000000000000000";
    assert_eq!(emptied, report.done().any(|measure| measure == "bounding set"));
    assert_eq!(!emptied, report.missing().any(|missing| missing.contains("bounding set")));
    let refused = std::thread::spawn(|| {
        let refused = [
            call(libc::SYS_unshare, [c_long(libc::CLONE_NEWNET), 0, 0]),
            call(libc::SYS_setuid, [12345, 0, 0]),
            call(libc::SYS_sethostname, [c"x".as_ptr().addr().cast_signed() as i64, 1, 0]),
        ];
        refused.map(|result| result.is_err())
    });
    assert_eq!(refused.join().unwrap(), [true; 3]);
}

fn descriptors() {
    let file = File::open("/proc/self/status").unwrap();
    let held: Vec<_> = (0..20).map(|_| file.try_clone().unwrap()).collect();
    let _report = Lock::new().descriptors(7).begin().unwrap().apply().unwrap();
    let mut more = Vec::new();
    let error = loop {
        match file.try_clone() {
            Ok(copy) => more.push(copy),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    assert_eq!(more.len(), 7);
    drop(held);
}

/// What cannot be done is told; with strictness, it is an error, and nothing has been done.
fn strict() {
    let places = Places::new();
    match Lock::new().strict().keep_socket(places.kept.join("socket")).begin() {
        Ok(begun) => drop(begun.apply().unwrap()),
        Err(LockError::Strict(report)) => {
            assert!(report.missing().count() > 0);
            assert_eq!(status("/proc/self/status")["NoNewPrivs"], "0");
            let lenient = Lock::new().begin().unwrap().apply().unwrap();
            let missing = |what: &str| report.missing().any(|told| told.contains(what));
            for told in lenient.missing() {
                assert!(missing(told), "{told} was no reason");
            }
        }
        Err(error) => panic!("{error}"),
    }
}

fn pid_namespace() {
    let mut proc = File::open("/proc/self/status").unwrap();
    let outside = std::process::id();
    let begun = Lock::new().pid_namespace().begin().unwrap();
    assert_eq!(std::process::id(), 1);
    // This thread has two parents in one: the file is that of the process that opened it.
    let mut text = String::new();
    proc.read_to_string(&mut text).unwrap();
    assert!(text.contains(&format!("Pid:\t{outside}\n")), "{text}");
    assert!(call(libc::SYS_kill, [i64::from(outside), 0, 0]).is_err(), "the guardian can be named");
    begun.apply().unwrap();
    // The guardian passes it on; the harness would exit with 101, or 0.
    std::process::exit(77);
}

/// A jailed thread that calls what it may not ends a process that is the first of its PID namespace, too.
fn violation() {
    struct Calling;
    impl Work for Calling {
        fn run(&mut self) {
            // SAFETY: takes and writes nothing.
            unsafe { libc::getppid() };
        }
    }
    let _report = Lock::new().pid_namespace().begin().unwrap().apply().unwrap();
    let filter = Jail::enforce().filter(Role::Console, -1).unwrap();
    drop(spawn("fc-test", |_| Ok(filter), Calling, |_| ()).unwrap().join());
    std::process::exit(1);
}

/// Who is killed before the lock is applied takes its child along as well.
fn orphan() {
    let (mut reader, mut writer) = io::pipe().unwrap();
    // SAFETY: this process has one thread.
    let guardian = unsafe { libc::fork() };
    if guardian == 0 {
        let _begun = Lock::new().pid_namespace().begin().unwrap();
        writer.write_all(b"!").unwrap();
        std::thread::sleep(super::LONG);
        std::process::exit(1);
    }
    drop(writer);
    reader.read_exact(&mut [0]).unwrap();
    // SAFETY: takes no pointers; the child has not been waited for.
    assert_eq!(unsafe { libc::kill(guardian, libc::SIGKILL) }, 0);
    // The last that holds the other end is gone: soon, or when it has slept.
    let start = std::time::Instant::now();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert!(start.elapsed() < super::LONG / 2, "it lived on");
}

/// A socket that another user cannot remove is told.
fn socket() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let places = Places::new();
    let path = places.kept.join("socket");
    fs::set_permissions(&places.kept, fs::Permissions::from_mode(0o755)).unwrap();
    let report = Lock::new().keep_socket(&path).user(NOBODY, NOBODY).begin().unwrap().apply().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().uid(), NOBODY, "it was handed over");
    assert!(report.missing().any(|missing| missing.contains(path.to_str().unwrap())), "{report}");
    assert_eq!(kind(fs::remove_file(&path)), DENIED);
}
