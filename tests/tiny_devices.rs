//! Virtio devices and KVM: where their registers are, what reaches user space, what is left behind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, reason = "tests")]

mod support;

use firecrest_vmm::{Block, Builder, Console, Exit, Kernel, Net, RegisterAccess, Vm, Vsock};
use support::process::{self, Held, huge_pages_unasked};
use support::{Recorder, Scratch, alone, elf, guests, wait};

fn disk(name: &str) -> Scratch {
    Scratch::file(name, &[0; 4096])
}

fn machine(code: &[u8]) -> Builder {
    Vm::builder().memory_mib(32).kernel(Kernel::from_bytes(&elf::pvh_kernel(code)).unwrap())
}

/// Runs to power-off; what was written, and how many exits to user space it took.
fn run(builder: Builder) -> (Vec<u8>, u64) {
    let serial = Recorder::default();
    let running = builder.console(Console::to(serial.clone())).build().unwrap().start().unwrap();
    assert_eq!(wait(&running).unwrap(), Exit::PowerOff);
    (serial.bytes(), running.stats().exits.iter().sum())
}

/// Bytes written by the guest `virtio_registers`, of which KVM keeps those after the first; and the one that ends it.
const OUTPUT_EXITS: u64 = 1 + 1;
/// With every access trapped.
const TRAPPED_OUTPUT_EXITS: u64 = 6 + 1;
/// The guest's one write to the status.
const STATUS_EXITS: u64 = 1;

#[test]
fn interrupt_registers_cause_no_exit() {
    let _alone = alone();
    let disk = disk("mapped");
    let (output, exits) = run(machine(guests::virtio_registers()).block(Block::file(disk.as_ref())));
    assert_eq!(output, b"virt1.");
    assert_eq!(
        exits,
        OUTPUT_EXITS + STATUS_EXITS,
        "for 1,000 reads of the status and 1,000 acknowledgements"
    );
}

#[test]
fn trapped_registers_are_the_same_to_the_guest() {
    let _alone = alone();
    let disk = disk("trapped");
    let builder = machine(guests::virtio_registers()).block(Block::file(disk.as_ref()));
    let (output, exits) = run(builder.register_access(RegisterAccess::Trapped));
    assert_eq!(output, b"virt1.");
    // Besides the thousands: the reads of the magic number and of the status.
    assert_eq!(exits, TRAPPED_OUTPUT_EXITS + STATUS_EXITS + 2 + 2 * 1000);
}

#[test]
fn there_are_up_to_24_devices_in_their_order() {
    let _alone = alone();
    let before = Held::now();
    let disks: Vec<_> = (0..25).map(|number| disk(&format!("many-{number}"))).collect();
    for access in [RegisterAccess::Mapped, RegisterAccess::Trapped] {
        let with = |count: usize| {
            let builder = machine(guests::virtio_ids()).register_access(access);
            disks.iter().take(count).fold(builder, |builder, disk| builder.block(Block::file(disk.as_ref())))
        };
        for count in [0, 1, 24] {
            let (output, _) = run(with(count));
            // Where there is no device, all bits are set.
            let expected: Vec<u8> = (0..25).map(|index| if index < count { 2 } else { 0xff }).collect();
            assert_eq!(output, expected);
        }
        let error = with(25).build().unwrap_err().to_string();
        assert_eq!(error, "25 devices are more than the 24 that a machine can have");
    }
    drop(disks);
    before.assert_back("machines of many devices");
}

#[test]
fn devices_have_threads_of_their_name_and_leave_nothing_behind() {
    let _alone = alone();
    let disk = disk("threads");
    let socket = std::env::temp_dir().join(format!("firecrest-{}-threads.vsock", std::process::id()));
    // Interfaces that are made for this, and gone with their last descriptor.
    let tap = format!("fct{}", std::process::id());
    let has_tap = Vm::builder()
        .kernel(Kernel::from_bytes(&elf::pvh_kernel(guests::spin())).unwrap())
        .net(Net::tap(&tap))
        .build()
        .is_ok();
    if !has_tap {
        println!("SKIPPED part of devices_have_threads_of_their_name_and_leave_nothing_behind: no TAP here");
    }
    let before = Held::now();
    for round in 0..20 {
        let serial = Recorder::default();
        let builder = machine(guests::spin()).console(Console::to(serial.clone()));
        let builder = builder.block(Block::file(disk.as_ref()).queues(2)).vsock(Vsock::unix(3, &socket));
        let builder = if has_tap { builder.net(Net::tap(&tap).queue_pairs(2)) } else { builder };
        let vm = builder.build().unwrap();
        // Built and not started is an end, too.
        if round % 4 == 0 {
            continue;
        }
        let running = vm.start().unwrap();
        serial.wait_for(1);
        let taps = if has_tap { &["fc-net2", "fc-net2.1"][..] } else { &[] };
        for name in ["fc-blk0", "fc-blk0.1", "fc-vsock1", "fc-vsock1.1"].iter().chain(taps) {
            support::until("the device's threads", || process::threads().iter().any(|thread| thread == name));
        }
        let queues: Vec<_> = running.stats().devices.iter().map(|device| device.queues.len()).collect();
        assert_eq!(queues, if has_tap { vec![2, 3, 5] } else { vec![2, 3] });
    }
    assert!(!socket.exists());
    before.assert_back("machines with devices");
}

/// Devices touch whatever memory their guest names: what is mapped there must not vanish under them.
#[test]
fn a_kernel_that_could_be_truncated_is_not_mapped_where_there_are_devices() {
    let _alone = alone();
    let mut code = guests::virtio_ids().to_vec();
    code.resize(1 << 20, 0x90);
    let file = Scratch::file("unsealed", &elf::pvh_kernel(&code));
    let disk = disk("sealing");
    let kernel = Kernel::open(file.as_ref()).unwrap();
    let name = file.as_ref().to_str().unwrap();
    let maps = || std::fs::read_to_string("/proc/self/maps").unwrap();
    for (kernel, has_disk, mapped) in [
        (kernel.clone(), false, name),
        (kernel.clone(), true, ""),
        (kernel.sealed().unwrap(), true, "memfd:firecrest-kernel"),
    ] {
        let builder = Vm::builder().memory_mib(64).kernel(kernel);
        let builder = if has_disk { builder.block(Block::file(disk.as_ref())) } else { builder };
        let vm = builder.build().unwrap();
        let maps = maps();
        let mapped = if huge_pages_unasked() { "" } else { mapped };
        for possible in [name, "memfd:firecrest-kernel"] {
            assert_eq!(maps.contains(possible), possible == mapped, "{possible}: {maps}");
        }
        drop(vm);
    }
}
