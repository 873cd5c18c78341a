//! Whatever is wrong with the input is refused before anything runs, in words that name the thing and the value, and
//! leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, reason = "tests")]

mod support;

use std::error::Error;
use std::path::Path;

use firecrest_vmm::{Builder, Kernel, Memory, Protocol, Vm};
use support::elf::{self, LOAD, field, spoil};
use support::process::Held;
use support::{Scratch, alone, guests, run, tiny};

/// The whole chain of causes, as a program would print it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Asserts that this fails, before or in `build`, with a text that has all of `words`, and leaves nothing behind.
fn refused<E: Error + 'static>(what: &str, words: &[&str], attempt: impl FnOnce() -> Result<Builder, E>) {
    let before = Held::now();
    let text = match attempt() {
        Err(error) => chain(&error),
        Ok(builder) => match builder.build() {
            Err(error) => chain(&error),
            Ok(_) => panic!("{what}: accepted"),
        },
    };
    println!("{what}: {text}");
    for word in words {
        let said = text.to_lowercase().contains(&word.to_lowercase());
        assert!(said, "{what}: the error does not say {word:?}: {text}");
    }
    assert!(!text.contains('\n'), "{what}: the error is more than a line: {text}");
    before.assert_back(what);
}

fn machine(kernel: Kernel) -> Builder {
    Vm::builder().memory_mib(32).vcpus(1).kernel(kernel)
}

/// Refused both from a file and from memory.
fn refused_kernel(what: &str, words: &[&str], bytes: &[u8]) {
    let file = Scratch::file("bad-kernel", bytes);
    refused(what, words, || Kernel::open(&file).map(machine));
    refused(what, words, || Kernel::from_bytes(bytes).map(machine));
}

fn good() -> Vec<u8> {
    elf::kernel(guests::power_off())
}

#[test]
fn the_good_kernel_is_accepted() {
    let _alone = alone();
    let exit = run(machine(Kernel::from_bytes(&good()).unwrap()));
    assert_eq!(exit, firecrest_vmm::Exit::PowerOff);
}

#[test]
fn kernel_files() {
    let _alone = alone();
    refused("missing", &["/nonexistent/vmlinux", "No such file"], || {
        Kernel::open("/nonexistent/vmlinux").map(machine)
    });
    refused("a directory", &["/proc", "not a regular file"], || Kernel::open("/proc").map(machine));
    refused("no kernel", &["kernel"], || Ok::<_, std::io::Error>(Vm::builder().memory_mib(32).vcpus(1)));
}

#[test]
fn kernel_contents() {
    let _alone = alone();
    refused_kernel("empty", &["kernel"], b"");
    refused_kernel("one byte", &["kernel"], b"\x7f");
    refused_kernel("not a kernel", &["kernel"], "A text is not a kernel.\n".repeat(1000).as_bytes());
    refused_kernel("zeros", &["kernel"], &[0; 65536]);
    refused_kernel("cut in the header", &["kernel"], good().get(..40).unwrap());
    refused_kernel("cut in the program headers", &["kernel"], good().get(..100).unwrap());
    refused_kernel("cut in the code", &["kernel"], good().get(..elf::CODE_OFFSET + 2).unwrap());
    refused_kernel("32-bit", &["32-bit"], &spoil(good(), field::CLASS, &[1]));
    refused_kernel("aarch64", &["183"], &spoil(good(), field::MACHINE, &183u16.to_le_bytes()));
}

#[test]
fn kernel_segments() {
    let _alone = alone();
    let set = |offset, value: u64| spoil(good(), offset, &value.to_le_bytes());
    let code = guests::power_off();
    let overlapping = elf::segments(&[(LOAD, code), (LOAD + 4, code)]);
    refused_kernel("overlapping segments", &["overlap"], &overlapping);
    refused_kernel(
        "entry outside any memory",
        &["entry", "0x7fffffff0000"],
        &set(field::ENTRY, 0x7fff_ffff_0000),
    );
    refused_kernel("segment beyond memory", &["0x40000000"], &set(field::SEGMENT_ADDRESS, 0x4000_0000));
    let last = set(field::SEGMENT_ADDRESS, u64::MAX - 15);
    refused_kernel("segment at the end of the address space", &["0xfffffffffffffff0"], &last);
    refused_kernel("segment among the boot data", &["0x1000"], &set(field::SEGMENT_ADDRESS, 0x1000));
    refused_kernel("larger in memory than memory", &["segment"], &set(field::SEGMENT_MEMORY_SIZE, 1 << 40));
    refused_kernel("of an endless size", &["segment"], &set(field::SEGMENT_MEMORY_SIZE, u64::MAX));
    refused_kernel("larger in the file than in memory", &["segment"], &set(field::SEGMENT_MEMORY_SIZE, 1));
    refused_kernel("segment outside the file", &["segment"], &set(field::SEGMENT_OFFSET, 1 << 30));
    refused_kernel("endless offset", &["segment"], &set(field::SEGMENT_OFFSET, u64::MAX));
    let large = elf::kernel(&vec![0x90; 17 << 20]);
    refused_kernel("larger than memory", &["0x2100000"], &large);
}

#[test]
fn initrds() {
    let _alone = alone();
    let kernel = || Kernel::from_bytes(&good());
    refused("missing", &["/nonexistent/initrd", "No such file"], || {
        kernel()?.initrd("/nonexistent/initrd").map(machine)
    });
    let large = Scratch::file("large-initrd", b"");
    std::fs::File::options().write(true).open(&large).unwrap().set_len(33 << 20).unwrap();
    refused("too large", &["initrd", "34603008", "0x2000000"], || kernel()?.initrd(&large).map(machine));
    refused("a directory", &["/proc", "not a regular file"], || {
        kernel()?.initrd(Path::new("/proc")).map(machine)
    });
}

#[test]
fn command_lines() {
    let _alone = alone();
    let with = |line: &str| Kernel::from_bytes(&good()).map(|kernel| machine(kernel.cmdline(line)));
    refused("too long", &["command line", "5000"], || with(&"x".repeat(5000)));
    refused("with a NUL", &["command line", "NUL"], || with("console=ttyS0\0quiet"));
}

#[test]
fn protocols() {
    let _alone = alone();
    refused("PVH without a note", &["PVH"], || {
        Kernel::from_bytes(&good()).map(|kernel| machine(kernel.protocol(Protocol::Pvh)))
    });
}

#[test]
fn memory_sizes() {
    let _alone = alone();
    let sizes: [(u64, &[&str]); 6] = [
        (0, &["memory", " 0 bytes"]),
        ((32 << 20) + 1, &["memory", "33554433"]),
        ((32 << 20) + 512, &["memory", "33554944"]),
        (15 << 20, &["memory", "15728640", "16 MiB"]),
        (65 << 30, &["memory", "69793218560", "64 GiB"]),
        (u64::MAX, &["memory", "18446744073709551615"]),
    ];
    for (bytes, words) in sizes {
        refused(&format!("{bytes} bytes"), words, || {
            Ok::<_, std::io::Error>(tiny(guests::power_off()).memory(Memory::bytes(bytes)))
        });
    }
    refused("u64::MAX MiB", &["memory"], || {
        Ok::<_, std::io::Error>(tiny(guests::power_off()).memory(Memory::mib(u64::MAX)))
    });
}

#[test]
fn vcpu_counts() {
    let _alone = alone();
    for (vcpus, word) in [(0, "0"), (65, "65"), (255, "255")] {
        refused(&format!("{vcpus} vCPUs"), &["vCPU", word], || {
            Ok::<_, std::io::Error>(tiny(guests::power_off()).vcpus(vcpus))
        });
    }
}

#[test]
fn kvm_devices() {
    let _alone = alone();
    let with = |path: &Path| Ok::<_, std::io::Error>(tiny(guests::power_off()).kvm_device(path));
    refused("no KVM", &["/nonexistent/kvm"], || with(Path::new("/nonexistent/kvm")));
    refused("not KVM", &["/dev/null"], || with(Path::new("/dev/null")));
    let file = Scratch::file("not-kvm", b"");
    refused("a file", &["KVM"], || with(file.as_ref()));
}

#[test]
fn kick_signals() {
    let _alone = alone();
    for signal in [0, -1, 65, libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV] {
        refused(&format!("signal {signal}"), &["signal", &signal.to_string()], || {
            Ok::<_, std::io::Error>(tiny(guests::power_off()).kick_signal(signal))
        });
    }
}
