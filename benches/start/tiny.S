/* The guest of the start benchmark, the same file for every monitor but one (off.S): it ends the run with its first
 * instructions, by the means each of them knows. The bytes mean the same in 32-bit (PVH) and 64-bit mode. */
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18              /* name, value, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad 0x1000000
    .text
    .code32
    .globl _start
_start:
    movb $0xfe, %al
    outb %al, $0x64             /* keyboard controller's reset: Firecrest, Firecracker */
    outb %al, $0xf4             /* QEMU's isa-debug-exit */
1:  hlt
    jmp 1b
    .section .note.GNU-stack, "", @progbits
