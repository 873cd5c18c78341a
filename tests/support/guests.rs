//! The guests, a few instructions each. Most are entered through the Linux 64-bit boot protocol: long mode, the first
//! gigabyte mapped one to one, `%rsi` pointing at the boot parameters. None depends on where it is loaded.
//!
//! Only plain instructions: a KVM without hardware virtualisation interprets them.

/// Assembles a guest into read-only data and names a function that gives its bytes.
macro_rules! guest {
    ($(#[$doc:meta])* $name:ident, $($line:literal)+) => {
        core::arch::global_asm!(
            ".section .rodata.guests, \"a\", @progbits",
            concat!(".globl tiny_guest_", stringify!($name)),
            concat!(".hidden tiny_guest_", stringify!($name)),
            concat!("tiny_guest_", stringify!($name), ":"),
            ".code64",
            $($line,)+
            ".code64",
            concat!(".globl tiny_guest_end_", stringify!($name)),
            concat!(".hidden tiny_guest_end_", stringify!($name)),
            concat!("tiny_guest_end_", stringify!($name), ":"),
            ".previous",
            options(att_syntax)
        );

        $(#[$doc])*
        pub fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("tiny_guest_", stringify!($name))]
                static START: u8;
                #[link_name = concat!("tiny_guest_end_", stringify!($name))]
                static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            // SAFETY: the assembly above defines both symbols, in this order, in one read-only section.
            unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
        }
    };
}

guest! {
    /// Powers off through the ACPI sleep control register.
    power_off,
    "mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "1: hlt"
    "jmp 1b"
}

guest! {
    /// Resets through the keyboard controller.
    reset_keyboard,
    "mov $0xfe, %al"
    "out %al, $0x64"
    "1: hlt"
    "jmp 1b"
}

guest! {
    /// Resets through the ACPI reset register.
    reset_acpi,
    "mov $0x602, %dx"
    "mov $1, %al"
    "out %al, %dx"
    "1: hlt"
    "jmp 1b"
}

guest! {
    /// Resets through a triple fault: an exception without any interrupt descriptor table.
    triple_fault,
    "push $0"
    "push $0"
    "lidt (%rsp)"
    "ud2"
    "1: hlt"
    "jmp 1b"
}

guest! {
    /// Tells the pvpanic device that it panicked.
    panic,
    "mov $0x505, %dx"
    "mov $1, %al"
    "out %al, %dx"
    "1: hlt"
    "jmp 1b"
}

guest! {
    /// Writes 10 KiB to the serial port, the alphabet over and over, and powers off at once.
    ten_kib,
    "mov $10240, %ecx"
    "mov $0x3f8, %dx"
    "1: mov $'a', %al"
    "2: out %al, %dx"
    "dec %ecx"
    "jz 3f"
    "inc %al"
    "cmp $'z' + 1, %al"
    "jne 2b"
    "jmp 1b"
    "3: mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "4: hlt"
    "jmp 4b"
}

guest! {
    /// Writes back what it reads from the serial port, up to and with the first `q`; then powers off.
    echo,
    "1: mov $0x3fd, %dx"
    "in %dx, %al"
    "test $1, %al"
    "jz 1b"
    "mov $0x3f8, %dx"
    "in %dx, %al"
    "out %al, %dx"
    "cmp $'q', %al"
    "jne 1b"
    "mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "2: hlt"
    "jmp 2b"
}

guest! {
    /// Says `!` and then spins without ever leaving the guest.
    spin,
    "mov $0x3f8, %dx"
    "mov $'!', %al"
    "out %al, %dx"
    "1: jmp 1b"
}

guest! {
    /// Sleeps for ever, interrupts off.
    sleep,
    "cli"
    "1: hlt"
    "jmp 1b"
}

guest! {
    /// Writes dots to the serial port for ever.
    dots,
    "mov $0x3f8, %dx"
    "mov $'.', %al"
    "1: out %al, %dx"
    "jmp 1b"
}

guest! {
    /// Writes the e820 memory map as it stands in the boot parameters to the serial port and powers off.
    memory_map,
    "movzbl 0x1e8(%rsi), %ecx"
    "imul $20, %ecx, %ecx"
    "add $0x2d0, %rsi"
    "mov $0x3f8, %dx"
    "1: test %ecx, %ecx"
    "jz 2f"
    "mov (%rsi), %al"
    "out %al, %dx"
    "inc %rsi"
    "dec %ecx"
    "jmp 1b"
    "2: mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "3: hlt"
    "jmp 3b"
}

guest! {
    /// Writes its command line to the serial port and powers off.
    command_line,
    "mov 0x228(%rsi), %esi"
    "mov $0x3f8, %dx"
    "1: mov (%rsi), %al"
    "test %al, %al"
    "jz 2f"
    "out %al, %dx"
    "inc %rsi"
    "jmp 1b"
    "2: mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "3: hlt"
    "jmp 3b"
}

guest! {
    /// Writes its initial RAM disk to the serial port and powers off.
    initrd,
    "mov 0x21c(%rsi), %ecx"
    "mov 0x218(%rsi), %esi"
    "mov $0x3f8, %dx"
    "1: test %ecx, %ecx"
    "jz 2f"
    "mov (%rsi), %al"
    "out %al, %dx"
    "inc %rsi"
    "dec %ecx"
    "jmp 1b"
    "2: mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "3: hlt"
    "jmp 3b"
}

guest! {
    /// Entered through PVH (32-bit protected mode, `%ebx` = start information): writes its command line, or `?` when the
    /// start information lacks its magic number, and powers off.
    pvh_command_line,
    ".code32"
    "mov $0x3f8, %dx"
    "mov $'?', %al"
    "cmpl $0x336ec578, (%ebx)"
    "jne 3f"
    "mov 24(%ebx), %esi"
    "1: mov (%esi), %al"
    "test %al, %al"
    "jz 2f"
    "out %al, %dx"
    "inc %esi"
    "jmp 1b"
    "3: out %al, %dx"
    "2: mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "4: hlt"
    "jmp 4b"
}

guest! {
    /// Starts every other CPU and powers off once as many as the code of the command line's first character have run.
    ///
    /// They start in real mode at 0x8000, each adds one to the word at 0x8ff0 and sleeps.
    start_cpus,
    "mov 0x228(%rsi), %eax"
    "movzbl (%rax), %ebp"
    // The other CPUs' code.
    "mov $0x8000, %edi"
    "lea 5f(%rip), %rsi"
    "mov $6f - 5f, %ecx"
    "1: mov (%rsi), %al"
    "mov %al, (%rdi)"
    "inc %rsi"
    "inc %rdi"
    "dec %ecx"
    "jnz 1b"
    "movl $0, 0x8ff0"
    // Turn the x2APIC on; INIT, then start-up at page 8, to all but oneself.
    "mov $0x1b, %ecx"
    "rdmsr"
    "or $0xc00, %eax"
    "wrmsr"
    "mov $0x830, %ecx"
    "xor %edx, %edx"
    "mov $0xc4500, %eax"
    "wrmsr"
    "mov $0xc4608, %eax"
    "wrmsr"
    "2: mov 0x8ff0, %eax"
    "cmp %eax, %ebp"
    "jne 2b"
    "mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "3: hlt"
    "jmp 3b"
    ".code16"
    "5: xor %ax, %ax"
    "mov %ax, %ds"
    "lock incw 0x8ff0"
    "4: hlt"
    "jmp 4b"
    "6:"
}

guest! {
    /// Executes an instruction that an interpreting KVM does not know (and that is harmless elsewhere), then powers off.
    cmpxchg16b,
    "xor %eax, %eax"
    "xor %edx, %edx"
    "mov $0x1234, %ebx"
    "xor %ecx, %ecx"
    "and $-16, %rsp"
    "sub $16, %rsp"
    "lock cmpxchg16b (%rsp)"
    "mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "1: hlt"
    "jmp 1b"
}

guest! {
    /// Jumps to 512 MiB, beyond the memory of a small machine.
    jump_into_nothing,
    "mov $0x1234, %ebx"
    "mov $0x20000000, %eax"
    "jmp *%rax"
}

guest! {
    /// Says `!`, waits for a character on the serial port, then runs code 16 KiB further on, which says `.` and powers off.
    far_page,
    "mov $0x3f8, %dx"
    "mov $'!', %al"
    "out %al, %dx"
    "mov $0x3fd, %dx"
    "1: in %dx, %al"
    "test $1, %al"
    "jz 1b"
    "jmp 2f"
    ".skip 0x4000"
    "2: mov $0x3f8, %dx"
    "mov $'.', %al"
    "out %al, %dx"
    "mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "3: hlt"
    "jmp 3b"
    ".skip 0x1000"
}

guest! {
    /// Entered through PVH, which leaves all addresses below 4 GiB in reach: writes the magic number and, after writing 1
    /// to it, the status of the first virtio-mmio device to the serial port; then reads its interrupt status and
    /// acknowledges a used buffer a thousand times, writes a dot, and powers off.
    virtio_registers,
    ".code32"
    "mov $0xd0000000, %ebx"
    "mov $0x3f8, %dx"
    "mov (%ebx), %eax"
    "mov $4, %ecx"
    "1: out %al, %dx"
    "shr $8, %eax"
    "dec %ecx"
    "jnz 1b"
    "movl $1, 0x70(%ebx)"
    "mov 0x70(%ebx), %eax"
    "add $'0', %al"
    "out %al, %dx"
    "mov $1000, %ecx"
    "2: mov 0x60(%ebx), %eax"
    "movl $1, 0x64(%ebx)"
    "dec %ecx"
    "jnz 2b"
    "mov $'.', %al"
    "out %al, %dx"
    "mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "3: hlt"
    "jmp 3b"
}

guest! {
    /// Entered through PVH: writes the low byte of the device id of each of 25 possible virtio-mmio devices to the serial
    /// port, and powers off.
    virtio_ids,
    ".code32"
    "mov $0xd0000000, %ebx"
    "mov $25, %ecx"
    "1: mov $0x3f8, %dx"
    "mov 8(%ebx), %eax"
    "out %al, %dx"
    "add $0x1000, %ebx"
    "dec %ecx"
    "jnz 1b"
    "mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "3: hlt"
    "jmp 3b"
}

guest! {
    /// Entered through PVH: drives the first virtio-mmio device as far as DRIVER_OK, without a queue, says `!`, waits until
    /// the first word of its configuration changes, and powers off.
    virtio_config_change,
    ".code32"
    "mov $0xd0000000, %ebx"
    "movl $1, 0x70(%ebx)"
    "movl $3, 0x70(%ebx)"
    "movl $1, 0x24(%ebx)"
    "movl $1, 0x20(%ebx)"
    "movl $11, 0x70(%ebx)"
    "movl $15, 0x70(%ebx)"
    "mov 0x100(%ebx), %ecx"
    "mov $0x3f8, %dx"
    "mov $'!', %al"
    "out %al, %dx"
    "1: mov 0x100(%ebx), %eax"
    "cmp %eax, %ecx"
    "je 1b"
    "mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "3: hlt"
    "jmp 3b"
}

guest! {
    /// Entered through PVH: leads pin 1 of the IOAPIC, a device's, to vector 0x30, and powers off.
    ioapic_route,
    ".code32"
    "mov $0xfec00000, %ebx"
    "movl $0x12, (%ebx)"
    "movl $0x30, 0x10(%ebx)"
    "mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "3: hlt"
    "jmp 3b"
}

guest! {
    /// Entered by PVH. Writes 10 KiB to the serial port's registers in memory as drivers do, asking the line status before each
    /// byte: the alphabet over and over. Powers off at once.
    ten_kib_in_memory,
    ".code32"
    "mov $0xcfffeffb, %ebx"
    "mov $10240, %ecx"
    "1: mov $'a', %al"
    "2: testb $0x20, 5(%ebx)"
    "jz 2b"
    "mov %al, (%ebx)"
    "dec %ecx"
    "jz 3f"
    "inc %al"
    "cmp $'z' + 1, %al"
    "jne 2b"
    "jmp 1b"
    "3: mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "4: hlt"
    "jmp 4b"
}

guest! {
    /// Entered by PVH. Writes three bytes to the serial port's registers in memory, and never leaves the guest again.
    three_bytes_in_memory,
    ".code32"
    "mov $0xcfffeffb, %ebx"
    "movb $'a', (%ebx)"
    "movb $'b', (%ebx)"
    "movb $'c', (%ebx)"
    "1: pause"
    "jmp 1b"
}

guest! {
    /// Entered by PVH. Writes 100 bytes to the serial port's registers in memory with the interrupt enabled that follows each,
    /// then 100 in loopback, of which it reads one back and writes it out. Powers off.
    prompt_bytes_in_memory,
    ".code32"
    "mov $0xcfffeffb, %ebx"
    "movb $2, 1(%ebx)"
    "mov $100, %ecx"
    "1: movb $'t', (%ebx)"
    "dec %ecx"
    "jnz 1b"
    "movb $0, 1(%ebx)"
    "movb $0x10, 4(%ebx)"
    "mov $100, %ecx"
    "2: movb $'l', (%ebx)"
    "testb $1, 5(%ebx)"
    "jz 3f"
    "dec %ecx"
    "jnz 2b"
    "mov (%ebx), %al"
    "movb $0, 4(%ebx)"
    "mov %al, (%ebx)"
    "3: mov $0x600, %dx"
    "mov $0x34, %al"
    "out %al, %dx"
    "4: hlt"
    "jmp 4b"
}
