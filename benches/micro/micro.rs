//! What is hot, by itself: `cargo bench -p firecrest-micro`.
//!
//! The last two need a KVM that opens; they say so and are left out where there is none.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    reason = "benchmarks"
)]

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use firecrest_boot::{Image, Machine, MmioDevice, Protocol, Request, layout, plan};
use firecrest_devices::testing::{BUFFERS, Driver, Seg};
use firecrest_devices::virtio::Chain;
use firecrest_devices::{Interrupt, eventfd};
use firecrest_micro::device;
use firecrest_vmm::{Kernel, Vm};
use vmm_sys_util::eventfd::EventFd;

/// Registers of virtio-mmio: VIRTIO 1.2, section 4.2.2.
const QUEUE_SEL: u64 = 0x30;
const STATUS: u64 = 0x70;

/// Chains that are available at a time.
const BATCH: u64 = 64;

/// A guest of a few bytes that resets the machine: `mov $0xfe, %al; out %al, $0x64; hlt`.
const RESET: [u8; 5] = [0xb0, 0xfe, 0xe6, 0x64, 0xf4];

/// An ELF that loads so much at 16 MiB and begins with the guest.
fn kernel(length: usize) -> Vec<u8> {
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0x100_0000_u64, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [4096_u64, 0x100_0000, 0x100_0000, length as u64, length as u64, 4096] {
        elf.extend(word.to_le_bytes());
    }
    elf.resize(4096, 0);
    elf.extend(RESET);
    elf.resize(4096 + length, 0x90);
    elf
}

/// A chain taken from the driver, given back and published, 64 at a time.
fn virtqueue(c: &mut Criterion) {
    let (device, queues) = device();
    let mut driver = Driver::started(device);
    let mut queue = queues.recv().unwrap();
    let mut chain = Chain::new();
    let segments = [Seg::readable(BUFFERS, 16), Seg::writable(BUFFERS + 4096, 512)];
    c.bench_function("virtqueue: pop, complete and publish a chain of two", |b| {
        b.iter_custom(|iterations| {
            let mut taken = Duration::ZERO;
            for _ in 0..iterations.div_ceil(BATCH) {
                for _ in 0..BATCH {
                    driver.offer(0, &segments);
                }
                let from = Instant::now();
                while queue.pop(&mut chain).unwrap() {
                    queue.complete(chain.head(), 512).unwrap();
                }
                queue.publish().unwrap();
                taken += from.elapsed();
                while driver.used(0).is_some() {}
            }
            taken.mul_f64(iterations as f64 / (iterations.div_ceil(BATCH) * BATCH) as f64)
        });
    });
    driver.bench.end();
}

/// What an exit costs once it has reached the device: a write that selects a queue, and a read of the status.
fn registers(c: &mut Criterion) {
    let (device, _queues) = device();
    let mut driver = Driver::started(device);
    c.bench_function("transport: write a register", |b| {
        b.iter(|| driver.write(black_box(QUEUE_SEL), black_box(0)));
    });
    c.bench_function("transport: read a register", |b| b.iter(|| driver.read(black_box(STATUS))));
    driver.bench.end();
}

struct Edge(EventFd);

impl Interrupt for Edge {
    fn signal(&self) -> std::io::Result<()> {
        self.0.write(1)
    }
}

/// Raising a line is a write to an eventfd; KVM takes it from there.
fn irqfd(c: &mut Criterion) {
    let edge = Edge(eventfd().unwrap());
    c.bench_function("interrupt: signal a line", |b| b.iter(|| edge.signal().unwrap()));
}

/// From an opened file to a plan of guest memory, with ACPI tables for 24 devices.
fn plans(c: &mut Criterion) {
    let path = std::env::temp_dir().join(format!("firecrest-micro-{}", std::process::id()));
    std::fs::write(&path, kernel(8 << 20)).unwrap();
    let file = File::open(&path).unwrap();
    c.bench_function("kernel: parse an ELF", |b| b.iter(|| Image::parse(black_box(&file)).unwrap()));
    c.bench_function("kernel: open", |b| b.iter(|| Kernel::open(black_box(path.as_path())).unwrap()));
    let image = Image::parse(&file).unwrap();
    let ram = layout::ram_ranges(128 << 20);
    let devices: Vec<_> = (0..layout::MAX_VIRTIO_DEVICES)
        .map(|index| MmioDevice {
            base: layout::VIRTIO_MMIO_BASE + u64::from(index) * layout::VIRTIO_MMIO_SIZE,
            size: layout::VIRTIO_MMIO_SIZE,
            gsi: layout::VIRTIO_GSI_FIRST + index,
        })
        .collect();
    for (name, count) in [("no devices", 0), ("24 devices", devices.len())] {
        let machine = Machine { ram: &ram, vcpus: 1, devices: devices.get(..count).unwrap_or_default() };
        let request =
            Request { image: &image, protocol: Protocol::Auto, initrd_len: None, cmdline: b"quiet", machine };
        let name = format!("boot: plan and ACPI tables, {name}");
        c.bench_function(&name, |b| b.iter(|| plan(black_box(&request)).unwrap()));
    }
    std::fs::remove_file(&path).unwrap();
}

/// A machine built and dropped; and one built, run to its guest's reset and torn down.
fn machines(c: &mut Criterion) {
    if firecrest_vmm::host::check(Path::new("/dev/kvm")).is_err() {
        println!("SKIPPED vm: no KVM that opens");
        return;
    }
    let kernel = Kernel::from_bytes(&kernel(4096)).unwrap();
    let build = || Vm::builder().memory_mib(128).kernel(kernel.clone()).build().unwrap();
    let mut group = c.benchmark_group("vm");
    group.sample_size(50);
    group.bench_function("build", |b| b.iter_batched(|| (), |()| build(), BatchSize::PerIteration));
    group.bench_function("build, start, run to the reset, tear down", |b| {
        b.iter(|| drop(build().start().unwrap().wait().unwrap()));
    });
    group.finish();
}

criterion_group!(benches, virtqueue, registers, irqfd, plans, machines);
criterion_main!(benches);
