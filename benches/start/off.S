/* tiny.S for Cloud Hypervisor, which starts its guest again when that resets itself: this one powers itself off. */
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18              /* name, value, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad 0x1000000
    .text
    .code32
    .globl _start
_start:
    movw $0x600, %dx
    movb $0x34, %al             /* S5, to the sleep control register of its ACPI tables */
    outb %al, (%dx)
1:  hlt
    jmp 1b
    .section .note.GNU-stack, "", @progbits
