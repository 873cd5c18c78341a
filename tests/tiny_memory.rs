//! What backs a guest's memory: huge pages where they are asked for, and the kernel's own file where it can be.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::fs;

use firecrest_vmm::{Console, Exit, HugePages, Kernel, Memory, Vm};
use support::process::huge_pages_unasked;
use support::{Recorder, Scratch, alone, elf, guests, run, tiny, wait};

/// The part of /proc/self/smaps about the first mapping that `wanted` (its header and details) is true of.
fn mapping(wanted: impl Fn(&str) -> bool) -> Option<String> {
    let text = fs::read_to_string("/proc/self/smaps").unwrap();
    // Each mapping's details end with its flags.
    let mut rest = text.as_str();
    while let Some((mapping, more)) = rest.find("VmFlags:").map(|flags| {
        let end = rest[flags..].find('\n').map_or(rest.len(), |line| flags + line + 1);
        rest.split_at(end)
    }) {
        if wanted(mapping) {
            return Some(mapping.to_owned());
        }
        rest = more;
    }
    None
}

fn kib(mapping: &str, field: &str) -> u64 {
    let line = mapping.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Boots a guest that says its memory map, on memory backed so.
fn says_its_memory_map(memory: Memory) {
    let console = Recorder::default();
    let builder = tiny(guests::memory_map()).memory(memory).console(Console::to(console.clone()));
    assert_eq!(run(builder), Exit::PowerOff);
    assert!(console.len() >= 3 * 20, "the map has entries: {:?}", console.bytes());
}

#[test]
fn transparent_huge_pages_are_asked_for() {
    let _alone = alone();
    let memory = Memory::mib(96).huge_pages(HugePages::Transparent);
    let vm = tiny(guests::power_off()).memory(memory).build().unwrap();
    let advised = mapping(|text| kib(text, "Size:") >= 96 << 10 && text.contains(" hg"));
    assert!(advised.is_some(), "no mapping of that size is advised");
    drop(vm);
    says_its_memory_map(memory);
}

#[test]
fn the_hugetlb_pool_backs_a_guest() {
    let _alone = alone();
    const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let before = fs::read_to_string(POOL).unwrap_or_default();
    let pages: u64 = before.trim().parse().unwrap_or_default();
    let enough = |pages: u64| fs::write(POOL, pages.to_string()).is_ok();
    let got = || fs::read_to_string(POOL).unwrap_or_default().trim().parse::<u64>().unwrap_or_default();
    if !enough(pages + 16) || got() < pages + 16 {
        let _ = fs::write(POOL, before);
        println!("SKIPPED the_hugetlb_pool_backs_a_guest: this host gives no 2 MiB pages to its pool");
        return;
    }
    let memory = Memory::mib(32).huge_pages(HugePages::Hugetlb2M);
    let tried = std::panic::catch_unwind(|| {
        let vm = tiny(guests::power_off()).memory(memory).build().unwrap();
        assert!(mapping(|text| kib(text, "KernelPageSize:") == 2048).is_some(), "no mapping of 2 MiB pages");
        drop(vm);
        says_its_memory_map(memory);
    });
    fs::write(POOL, before).unwrap();
    tried.unwrap();
}

#[test]
fn an_empty_hugetlb_pool_is_an_error_that_says_so() {
    let _alone = alone();
    // More than any pool that a machine of this size would have.
    let memory = Memory::mib(64 << 10).huge_pages(HugePages::Hugetlb2M);
    let error = tiny(guests::power_off()).memory(memory).build().unwrap_err().to_string();
    assert!(error.contains("cannot map") && error.contains("Hugetlb2M"), "{error}");
}

/// A kernel large enough to be worth it is mapped from its file, not copied; the guest runs from there. Among huge pages
/// it is copied.
#[test]
fn a_large_kernel_is_mapped_where_pages_are_small() {
    let _alone = alone();
    let mut code = guests::power_off().to_vec();
    code.resize(1 << 20, 0x90);
    let file = Scratch::file("large", &elf::kernel(&code));
    let name = file.as_ref().to_str().unwrap().to_owned();
    let mapped = || mapping(|text| text.lines().next().unwrap().ends_with(&name));
    for huge_pages in [HugePages::HostPolicy, HugePages::Transparent] {
        let memory = Memory::mib(64).huge_pages(huge_pages);
        let builder = Vm::builder().memory(memory).kernel(Kernel::open(file.as_ref()).unwrap());
        let vm = builder.build().unwrap();
        if huge_pages == HugePages::HostPolicy && !huge_pages_unasked() {
            let mapped = mapped().expect("the file is mapped");
            assert_eq!(kib(&mapped, "Size:"), 1 << 10, "all of it: {mapped}");
            assert!(
                mapped.lines().next().unwrap().contains(" rw-p "),
                "privately, and not executable by us: {mapped}"
            );
        } else {
            assert_eq!(mapped(), None, "{huge_pages:?}");
        }
        let running = vm.start().unwrap();
        assert_eq!(wait(&running).unwrap(), Exit::PowerOff);
        drop(running);
        assert_eq!(mapped(), None, "it is unmapped");
    }
}
