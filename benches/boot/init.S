/* PID 1 of the boot benchmark. Its first instructions ask for a CPUID leaf that nobody else asks for: every monitor's
 * KVM answers that itself and traces it, so the moment is known without a device, a port or a privilege. Then it
 * ends the run: by a power-off where the command line's word for init says so, otherwise by a reset. */
    .globl _start
_start:
    movl $0x4fc10000, %eax
    cpuid
    movl $0x01234567, %edx          /* LINUX_REBOOT_CMD_RESTART */
    cmpq $1, (%rsp)                 /* argc */
    je 1f
    movq 16(%rsp), %rax             /* argv[1] */
    cmpl $0x65776f70, (%rax)        /* "powe", of "poweroff" */
    jne 1f
    movl $0x4321fedc, %edx          /* LINUX_REBOOT_CMD_POWER_OFF */
1:  movl $169, %eax                 /* reboot */
    movl $0xfee1dead, %edi
    movl $0x28121969, %esi
    syscall
2:  pause
    jmp 2b
    .section .note.GNU-stack, "", @progbits
