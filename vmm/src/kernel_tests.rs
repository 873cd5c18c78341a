use super::*;
use std::os::unix::fs::FileExt;

/// The smallest kernel: an ELF header, one program header, and a segment of a few bytes at 16 MiB.
fn tiny() -> Vec<u8> {
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0x100_0000u64, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [120u64, 0x100_0000, 0x100_0000, 3, 3, 1] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0xf4, 0xeb, 0xfd]);
    elf
}

#[test]
fn a_kernel_in_memory_cannot_be_changed() {
    let bytes = tiny();
    let kernel = Kernel::from_bytes(&bytes).unwrap();
    let file = &kernel.source.file;
    assert!(file.write_at(b"x", 0).is_err() && file.set_len(0).is_err() && file.set_len(1 << 20).is_err());
    let mut now = vec![0; bytes.len()];
    file.read_exact_at(&mut now, 0).unwrap();
    assert_eq!(now, bytes);
}

#[test]
fn sealing_makes_a_kernel_independent_of_its_file() {
    let path = std::env::temp_dir().join(format!("firecrest-seal-{}", std::process::id()));
    std::fs::write(&path, tiny()).unwrap();
    let opened = Kernel::open(&path).unwrap().cmdline("console=ttyS0");
    let sealed = opened.sealed().unwrap();
    std::fs::write(&path, b"gone").unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut now = vec![0; tiny().len()];
    sealed.source.file.read_exact_at(&mut now, 0).unwrap();
    assert_eq!(now, tiny());
    assert_eq!(sealed.cmdline, b"console=ttyS0", "all else is kept");
    assert!(sealed.source.file.set_len(0).is_err());
    let error = opened.sealed().unwrap_err().to_string();
    assert!(error.contains("is not a bootable kernel"), "what is no kernel any more is refused: {error}");
}
