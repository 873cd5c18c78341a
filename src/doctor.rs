//! `firecrest doctor`: what this host can do, and what to mend.

use std::error::Error;
use std::{fmt::Display, fs};

use firecrest_vmm::host;

/// Prints the findings, one a line, and ends by running the built-in guest.
pub fn doctor() -> Result<u8, Box<dyn Error>> {
    let cpu = read("/proc/cpuinfo");
    match cpu.split_whitespace().find(|flag| matches!(*flag, "vmx" | "svm")) {
        Some(flag) => say("ok", format!("the CPU has hardware virtualisation ({flag})")),
        None => say(
            "note",
            "the CPU shows no hardware virtualisation (vmx, svm): enable it in the firmware, or nested \
             virtualisation for this machine; `cargo xtask demo` emulates a machine that has it",
        ),
    }
    match host::check("/dev/kvm").map(|flavour| (flavour, flavour.hint())) {
        Ok((flavour, None)) => say("ok", format!("/dev/kvm: {flavour}")),
        Ok((flavour, Some(hint))) => say("note", format!("/dev/kvm: {flavour}: {hint}")),
        Err(error) => say("BAD", error),
    }
    match read("/sys/module/kvm/parameters/nx_huge_pages").trim() {
        "Y" if !read("/proc/mounts").contains("favordynmods") => say(
            "note",
            "kvm.nx_huge_pages is on and costs each microVM milliseconds at its start: `mount -o \
             remount,favordynmods /sys/fs/cgroup`, or load kvm with nx_huge_pages=never on an unaffected CPU",
        ),
        state => say("ok", format!("kvm.nx_huge_pages does not slow down the start ({state})")),
    }
    match fs::File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => say("ok", "/dev/net/tun can be opened, for network devices"),
        Err(error) => say("note", format!("no network devices, /dev/net/tun: {error} (modprobe tun?)")),
    }
    say("info", format!("transparent huge pages: {}", read("/sys/kernel/mm/transparent_hugepage/enabled").trim()));
    let pool = read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    say("info", format!("free 2 MiB hugetlb pages: {}", pool.trim()));
    crate::hello::hello()
}

fn say(verdict: &str, finding: impl Display) {
    println!("{verdict:<5} {finding}");
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
