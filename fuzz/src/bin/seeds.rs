//! Writes the inputs from which fuzzing starts: `seeds <corpus directory>`.

use std::io;
use std::path::Path;

use firecrest_fuzz::kernels::{Elf, bzimage, note};

fn write(corpus: &Path, target: &str, seeds: &[(&str, Vec<u8>)]) -> io::Result<()> {
    let dir = corpus.join(target);
    std::fs::create_dir_all(&dir)?;
    seeds.iter().try_for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes))
}

fn main() -> io::Result<()> {
    let corpus =
        std::env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: seeds <corpus directory>"))?;
    let corpus = Path::new(&corpus);
    let mut notes = note(b"GNU\0", 3, &[0; 20], 4);
    notes.extend(note(b"Xen\0", 18, &0x10_0000u64.to_le_bytes(), 4));
    let elves = [
        ("tiny", Elf::tiny().build()),
        ("pvh", Elf::tiny().pvh(0x10_0000).build()),
        ("segments", Elf::tiny().load(0x40_0000, 0x10_0000).load(0x20_0000, 0x1000).notes(4, notes).build()),
    ];
    write(corpus, "elf", &elves)?;
    write(corpus, "bzimage", &[("bzimage", bzimage())])?;
    // A driver that comes up, makes a chain available in each of two queues, and resets the device.
    let script = vec![0, 0, 5, 0, 0, 1, 0, 5, 1, 0, 1, 0, 9, 0, 0];
    ["block", "net", "vsock"]
        .into_iter()
        .try_for_each(|target| write(corpus, target, &[("up", script.clone())]))
}
