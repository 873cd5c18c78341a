//! `firecrest doctor`: what this host can do, and what to mend.

use std::{error::Error, fs};

use firecrest_vmm::host;

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
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let pool = read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    println!("info  transparent huge pages: {}; free 2 MiB pages: {}", huge.trim(), pool.trim());
    crate::hello::hello()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
