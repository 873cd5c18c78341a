//! From the monitor's jump to ring 3: the only instructions that run in ring 0, and what a C library would have brought.
//!
//! Entered by the Linux 64-bit boot protocol: long mode, `rsi` points to `boot_params`. The pages of the first GiB
//! (RAM) and of the fourth (device windows, uncached) belong to ring 3, and so do the I/O ports used here: by a
//! task state segment that permits them, since not every KVM lets IOPL 3 reach its instruction emulator.

use core::arch::global_asm;

use crate::clock::CLOCK_PAGE;

global_asm!(
    r#"
    .section .start, "ax"
    .globl _start
_start:
    lea rsp, [rip + boot_stack_top]
    mov rdi, rsi
    mov rax, cr0
    and rax, -5                     # no x87 emulation
    or rax, 2                       # monitor coprocessor
    mov cr0, rax
    mov rax, cr4
    or rax, 0x600                   # OSFXSR, OSXMMEXCPT: SSE
    mov cr4, rax
    lea rax, [rip + pml4]
    mov cr3, rax
    lea rax, [rip + tss]
    mov word ptr [rip + gdt_tss + 2], ax
    shr rax, 16
    mov byte ptr [rip + gdt_tss + 4], al
    mov byte ptr [rip + gdt_tss + 7], ah
    lgdt [rip + gdt_pointer]
    mov eax, 0x28
    ltr ax
    mov ecx, 0x4b564d01             # MSR_KVM_SYSTEM_TIME_NEW: KVM keeps the page up to date from here on
    lea rax, [rip + {clock}]
    or rax, 1
    xor edx, edx
    wrmsr
    push 0x23                       # ss
    lea rax, [rip + user_stack_top - 8]
    push rax
    push 2                          # interrupts off
    push 0x1b                       # cs
    lea rax, [rip + user_main]
    push rax
    iretq

    .section .tables, "aw"
    .balign 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00affb000000ffff, 0x00cff3000000ffff
gdt_tss:
    .quad 0x0000890000000000 + tss_end - tss - 1, 0
gdt_pointer:
    .word 55
    .quad gdt

tss:
    .fill 102, 1, 0
    .word 104                       # where the bitmap begins: ports below 0x400 are permitted
    .fill 0x400 / 8, 1, 0
    .byte 0xff
tss_end:

    .balign 4096
pml4:
    .quad pdpt + 7
    .fill 511, 8, 0
pdpt:
    .quad ram + 7, 0, 0, windows + 7
    .fill 508, 8, 0
    .set page, 0
ram:
    .rept 512
    .quad page + 0x87               # present, writable, user, 2 MiB
    .set page, page + 0x200000
    .endr
    .set page, 0xc0000000
windows:
    .rept 512
    .quad page + 0x9f               # and uncached
    .set page, page + 0x200000
    .endr

    .section .bss.stacks, "aw", @nobits
    .balign 16
    .skip 4096
boot_stack_top:
    .skip 65536
user_stack_top:
    "#,
    clock = sym CLOCK_PAGE,
);

// What the compiler calls for copies and fills.
global_asm!(
    r#"
    .text
    .globl memcpy, memmove, memset, memcmp, bcmp
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret
memmove:
    mov rax, rdi
    mov rcx, rdx
    mov r8, rdi
    sub r8, rsi
    cmp r8, rdx
    jb 1f
    rep movsb
    ret
1:  std
    lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    rep movsb
    cld
    ret
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret
memcmp:
bcmp:
    xor eax, eax
    xor ecx, ecx
2:  cmp rcx, rdx
    je 3f
    movzx eax, byte ptr [rdi + rcx]
    movzx r8d, byte ptr [rsi + rcx]
    inc rcx
    sub eax, r8d
    jz 2b
3:  ret
    "#
);
