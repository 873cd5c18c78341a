//! Kernel files for tests: small, valid, and easy to spoil byte by byte.

#![allow(dead_code, reason = "shared by several test crates, none of which uses all of it")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "test code"
)]

/// Offsets of ELF header fields.
pub mod ehdr {
    pub const CLASS: usize = 4;
    pub const DATA: usize = 5;
    pub const TYPE: usize = 0x10;
    pub const MACHINE: usize = 0x12;
    pub const ENTRY: usize = 0x18;
    pub const PHOFF: usize = 0x20;
    pub const PHENTSIZE: usize = 0x36;
    pub const PHNUM: usize = 0x38;
    pub const LEN: usize = 64;
}

/// Offsets of program header fields, from the start of the header.
pub mod phdr {
    pub const TYPE: usize = 0;
    pub const OFFSET: usize = 8;
    pub const PADDR: usize = 24;
    pub const FILESZ: usize = 32;
    pub const MEMSZ: usize = 40;
    pub const ALIGN: usize = 48;
    pub const LEN: usize = 56;
}

/// Offsets of setup header fields, from the start of the file.
pub mod setup {
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const SYSSIZE: usize = 0x1f4;
    pub const BOOT_FLAG: usize = 0x1fe;
    pub const JUMP_LEN: usize = 0x201;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const LOADFLAGS: usize = 0x211;
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    pub const KERNEL_ALIGNMENT: usize = 0x230;
    pub const RELOCATABLE: usize = 0x234;
    pub const XLOADFLAGS: usize = 0x236;
    pub const CMDLINE_SIZE: usize = 0x238;
    pub const SETUP_DATA: usize = 0x250;
    pub const PREF_ADDRESS: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
    pub const KERNEL_INFO: usize = 0x268;
}

/// Overwrites the bytes at `offset`.
pub fn patch(file: &mut [u8], offset: usize, bytes: &[u8]) {
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Where field `field` of program header `index` lies.
pub const fn phdr_at(index: usize, field: usize) -> usize {
    ehdr::LEN + index * phdr::LEN + field
}

/// A segment to load.
#[derive(Clone, Debug)]
pub struct Load {
    pub paddr: u64,
    pub bytes: Vec<u8>,
    pub mem_len: u64,
}

/// An ELF64 executable for x86-64: program headers for the loads, then for the notes, then their bytes in order.
#[derive(Clone, Debug, Default)]
pub struct Elf {
    pub entry: u64,
    pub loads: Vec<Load>,
    /// Note segments, each with its alignment.
    pub notes: Vec<(u64, Vec<u8>)>,
}

impl Elf {
    /// One page of code at 1 MiB, entered there, without notes.
    pub fn tiny() -> Self {
        Self::at(0x10_0000, 0x1000)
    }

    /// One segment of `mem_len` bytes at `paddr`, entered at its start.
    pub fn at(paddr: u64, mem_len: u64) -> Self {
        Self { entry: paddr, loads: vec![Load { paddr, bytes: vec![0xf4; 16], mem_len }], notes: vec![] }
    }

    pub fn load(mut self, paddr: u64, mem_len: u64) -> Self {
        self.loads.push(Load { paddr, bytes: vec![0x90; 16], mem_len });
        self
    }

    pub fn notes(mut self, align: u64, bytes: Vec<u8>) -> Self {
        self.notes.push((align, bytes));
        self
    }

    /// With a PVH note as Linux writes it.
    pub fn pvh(self, entry: u64) -> Self {
        self.notes(4, note(b"Xen\0", 18, &entry.to_le_bytes(), 4))
    }

    pub fn build(&self) -> Vec<u8> {
        let count = self.loads.len() + self.notes.len();
        let mut file = vec![0; ehdr::LEN + count * phdr::LEN];
        patch(&mut file, 0, b"\x7fELF\x02\x01\x01");
        patch(&mut file, ehdr::TYPE, &2u16.to_le_bytes());
        patch(&mut file, ehdr::MACHINE, &62u16.to_le_bytes());
        patch(&mut file, ehdr::ENTRY, &self.entry.to_le_bytes());
        patch(&mut file, ehdr::PHOFF, &(ehdr::LEN as u64).to_le_bytes());
        patch(&mut file, ehdr::PHENTSIZE, &(phdr::LEN as u16).to_le_bytes());
        patch(&mut file, ehdr::PHNUM, &(count as u16).to_le_bytes());
        let loads = self.loads.iter().map(|load| (1u32, load.paddr, &load.bytes, load.mem_len, 0x1000));
        let notes = self.notes.iter().map(|(align, bytes)| (4u32, 0, bytes, bytes.len() as u64, *align));
        for (index, (kind, paddr, bytes, mem_len, align)) in loads.chain(notes).enumerate() {
            let offset = file.len() as u64;
            patch(&mut file, phdr_at(index, phdr::TYPE), &kind.to_le_bytes());
            patch(&mut file, phdr_at(index, phdr::OFFSET), &offset.to_le_bytes());
            patch(&mut file, phdr_at(index, phdr::PADDR), &paddr.to_le_bytes());
            patch(&mut file, phdr_at(index, phdr::FILESZ), &(bytes.len() as u64).to_le_bytes());
            patch(&mut file, phdr_at(index, phdr::MEMSZ), &mem_len.to_le_bytes());
            patch(&mut file, phdr_at(index, phdr::ALIGN), &align.to_le_bytes());
            file.extend_from_slice(bytes);
        }
        file
    }
}

/// One note, padded to `align` after its name and after its descriptor.
pub fn note(name: &[u8], kind: u32, descriptor: &[u8], align: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(descriptor.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(name);
    bytes.resize(bytes.len().next_multiple_of(align), 0);
    bytes.extend_from_slice(descriptor);
    bytes.resize(bytes.len().next_multiple_of(align), 0);
    bytes
}

/// Where [`bzimage`]'s kernel wants to be.
pub const BZIMAGE_ADDRESS: u64 = 0x100_0000;
/// The memory it wants there.
pub const BZIMAGE_INIT_SIZE: u32 = 0x80_0000;
/// Bytes of protected-mode code in it.
pub const BZIMAGE_PAYLOAD: usize = 0x800;

/// A bzImage of protocol 2.15: one setup sector, [`BZIMAGE_PAYLOAD`] bytes of code.
pub fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 2 * 512 + BZIMAGE_PAYLOAD];
    patch(&mut file, setup::SETUP_SECTS, &[1]);
    patch(&mut file, setup::SYSSIZE, &(BZIMAGE_PAYLOAD as u32 / 16).to_le_bytes());
    patch(&mut file, setup::BOOT_FLAG, &[0x55, 0xaa, 0xeb, 0x6a]);
    patch(&mut file, setup::MAGIC, b"HdrS");
    patch(&mut file, setup::VERSION, &0x020fu16.to_le_bytes());
    patch(&mut file, setup::LOADFLAGS, &[1]);
    patch(&mut file, setup::INITRD_ADDR_MAX, &0x7fff_ffffu32.to_le_bytes());
    patch(&mut file, setup::KERNEL_ALIGNMENT, &0x20_0000u32.to_le_bytes());
    patch(&mut file, setup::RELOCATABLE, &[1, 21]);
    patch(&mut file, setup::XLOADFLAGS, &0x7fu16.to_le_bytes());
    patch(&mut file, setup::CMDLINE_SIZE, &2047u32.to_le_bytes());
    patch(&mut file, setup::PREF_ADDRESS, &BZIMAGE_ADDRESS.to_le_bytes());
    patch(&mut file, setup::INIT_SIZE, &BZIMAGE_INIT_SIZE.to_le_bytes());
    file
}
