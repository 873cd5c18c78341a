/* A guest that says one byte on the serial port, and then does nothing for ever. The bytes mean the same in 32-bit (PVH)
 * and 64-bit mode. */
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18              /* name, value, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad 0x1000000
    .text
    .code32
    .globl _start
_start:
    movw $0x3f8, %dx
    movb $0x21, %al
    outb %al, (%dx)
    cli
1:  hlt
    jmp 1b
    .section .note.GNU-stack, "", @progbits
