//! Locked programs, what they look like from outside, and who may start them.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, ptr};

use super::elf;
use super::program::{Started, program};

/// All there is but a cgroup.
pub const EVERYTHING: &str = "--lock=namespaces,pid-namespace,uid=65534,gid=65534";
/// Somebody without rights, on every machine.
pub const NOBODY: u32 = 65534;

/// Why something that needs root cannot be tested here.
pub fn not_root() -> Option<&'static str> {
    // SAFETY: takes nothing and cannot fail.
    (unsafe { libc::geteuid() } != 0).then_some("needs root")
}

/// The lines of a status file, by name.
pub fn status(path: impl AsRef<Path>) -> BTreeMap<String, String> {
    lines(&fs::read_to_string(path).unwrap())
}

fn lines(text: &str) -> BTreeMap<String, String> {
    let line =
        |line: &str| line.split_once(":\t").map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    text.lines().filter_map(line).collect()
}

/// The status of each thread of a process.
pub fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // One may have ended since.
    let texts = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok());
    texts.map(|text| lines(&text)).collect()
}

/// A namespace of a process: what its link says.
pub fn namespace(pid: u32, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

/// The child of a process that has one.
pub fn child_of(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap_or_else(|_| panic!("{pid} has the children `{children}`"))
}

/// A directory of the test's own, everybody's to use, gone when this is dropped.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("firecrest-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        open_to_all(&path);
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

/// Copies a program to where everybody may execute it.
///
/// By another program: a file that this one has open for writing cannot be executed, nor can one that a child of its
/// other threads still has.
pub fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
    open_to_all(to);
}

/// Has a command run as nobody, who may use KVM all the same: in a mount namespace of its own, where the devices
/// are everybody's. For root.
pub fn as_nobody<'a>(command: &'a mut Command, directory: &Directory) -> &'a mut Command {
    let devices = ["kvm", "net/tun"].map(|name| {
        let copy = CString::new(directory.join(&name.replace('/', "-")).to_str().unwrap()).unwrap();
        (CString::new(format!("/dev/{name}")).unwrap(), copy)
    });
    for (device, copy) in &devices {
        let mut found = std::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: strings that end, and room for the answer, for which zero is valid, too.
        unsafe {
            if libc::stat(device.as_ptr(), found.as_mut_ptr()) == 0 {
                libc::mknod(copy.as_ptr(), libc::S_IFCHR | 0o666, found.assume_init().st_rdev);
                libc::chmod(copy.as_ptr(), 0o666);
            }
        }
    }
    let become_nobody = move || {
        // SAFETY: strings that end, or null where that is allowed.
        let done = unsafe {
            let none = ptr::null();
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, ptr::null()) == 0
                && devices.iter().all(|(device, copy)| {
                    libc::access(copy.as_ptr(), libc::F_OK) != 0
                        || libc::mount(copy.as_ptr(), device.as_ptr(), none, libc::MS_BIND, ptr::null()) == 0
                })
                && libc::setgroups(0, ptr::null()) == 0
                && libc::setresgid(NOBODY, NOBODY, NOBODY) == 0
                && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: only system calls, which are safe between fork and exec.
    unsafe { command.pre_exec(become_nobody) }
}

/// The first file system of cgroups of version 2, and the controllers that cgroups below it can have.
pub fn cgroups() -> Option<(PathBuf, String)> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let path = words.next()?;
        (words.next() == Some("cgroup2")).then(|| PathBuf::from(path))
    })?;
    for controller in ["memory", "cpu", "pids"] {
        // Refused where it is not there, or taken by version 1.
        let _ = fs::write(mount.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    let controllers = fs::read_to_string(mount.join("cgroup.subtree_control")).unwrap_or_default();
    Some((mount, controllers))
}

/// A cgroup of the test's own, gone when this is dropped.
pub struct TestCgroup(pub PathBuf);

impl TestCgroup {
    pub fn new(mount: &Path, name: &str) -> io::Result<Self> {
        let path = mount.join(format!("firecrest-{}-{name}", std::process::id()));
        fs::create_dir(&path).map(|()| Self(path))
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A guest, and a place for what its test needs.
pub struct Guest {
    pub directory: Directory,
    kernel: PathBuf,
    program: PathBuf,
}

impl Guest {
    /// Entered through PVH.
    pub fn new(name: &str, code: &[u8]) -> Self {
        let directory = Directory::new(name);
        let kernel = directory.join("kernel");
        fs::write(&kernel, elf::pvh_kernel(code)).unwrap();
        // Nobody may not be let in where the program lies.
        let copy = directory.join("firecrest");
        copy_program(Path::new(program().get_program()), &copy);
        Self { directory, kernel, program: copy }
    }

    /// The same, entered as Linux is.
    pub fn linux(name: &str, code: &[u8]) -> Self {
        let guest = Self::new(name, code);
        fs::write(&guest.kernel, elf::kernel(code)).unwrap();
        guest
    }

    /// The program, to run it.
    pub fn run(&self, options: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["run", "--memory", "32", "--kernel"]).arg(&self.kernel).args(options);
        command.stdin(Stdio::null());
        command
    }
}

/// What a program has written.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Starts it and waits until its guest has written something.
pub fn working(command: &mut Command) -> Started {
    let mut child = Started::new(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let read = child.0.stdout.as_mut().unwrap().read_exact(&mut [0]);
    if let Err(error) = read {
        let mut said = String::new();
        child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        panic!("{error}: {said}");
    }
    child
}

/// Has it end.
pub fn stops(mut child: Started) {
    child.send(libc::SIGTERM);
    assert_eq!(child.end().code(), Some(19));
}
