//! `firecrest doctor`: what this host can do, and what to mend.

use std::{error::Error, fs};

use firecrest_vmm::{host, lock};

/// What a host keeps user namespaces from its users by.
const USER_NAMESPACES: [(&str, &str); 3] = [
    ("/proc/sys/user/max_user_namespaces", "0"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
];

/// Prints the findings, and ends by running the built-in guest.
pub fn doctor() -> Result<u8, Box<dyn Error>> {
    let cpu = read("/proc/cpuinfo");
    match cpu.split_whitespace().find(|flag| matches!(*flag, "vmx" | "svm")) {
        Some(flag) => println!("ok    the CPU has hardware virtualisation ({flag})"),
        None => println!(
            "note  the CPU shows no hardware virtualisation (vmx, svm): enable it in the firmware, or nested \
             virtualisation for this machine; `cargo xtask demo` emulates a machine that has it"
        ),
    }
    match host::check("/dev/kvm").map(|flavour| (flavour, flavour.hint())) {
        Ok((flavour, None)) => println!("ok    /dev/kvm: {flavour}"),
        Ok((flavour, Some(hint))) => println!("note  /dev/kvm: {flavour}: {hint}"),
        Err(error) => println!("BAD   {error}"),
    }
    match read("/sys/module/kvm/parameters/nx_huge_pages").trim() {
        "" => {}
        "Y" if !read("/proc/mounts").contains("favordynmods") => println!(
            "note  kvm.nx_huge_pages is on and costs each microVM milliseconds at its start: `mount -o \
             remount,favordynmods /sys/fs/cgroup`, or load kvm with nx_huge_pages=never on an unaffected CPU"
        ),
        state => println!("ok    kvm.nx_huge_pages does not slow down the start ({state})"),
    }
    match fs::File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => println!("ok    /dev/net/tun can be opened, for network devices"),
        Err(error) => println!("note  no network devices: /dev/net/tun: {error} (modprobe tun?)"),
    }
    match lock::landlock_abi() {
        Ok(abi) => println!("ok    Landlock: ABI {abi}, for --lock"),
        Err(error) => println!(
            "note  no Landlock, for --lock: {error} (CONFIG_SECURITY_LANDLOCK, and `landlock` among lsm=)"
        ),
    }
    match USER_NAMESPACES.iter().find(|(path, refuses)| read(path).trim() == *refuses) {
        _ if read("/proc/self/uid_map").is_empty() => {
            println!("note  no user namespaces, for --lock=namespaces without root (CONFIG_USER_NS)");
        }
        Some((path, refuses)) => {
            println!("note  no user namespaces, for --lock=namespaces without root: {path} is {refuses}");
        }
        None => println!("ok    user namespaces, for --lock=namespaces without root"),
    }
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let pool = read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    println!("info  transparent huge pages: {}; free 2 MiB pages: {}", huge.trim(), pool.trim());
    crate::hello::hello()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
