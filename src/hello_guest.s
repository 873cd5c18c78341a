# The built-in hello guest: a whole kernel, ELF headers included, in a few hundred bytes.
#
# It is entered through the Linux 64-bit boot protocol (long mode, %rsi = the boot parameters, a stack), says on the
# serial port how much memory and how many CPUs it sees, and powers the machine off. Addresses are relative to the
# instruction pointer or differences of labels, so that nothing here needs a relocation. Only plain instructions: a KVM
# without hardware virtualisation interprets them.

        .set    LOAD, 0x1000000         # where the image is loaded and linked: 16 MiB
        .set    SERIAL, 0x3f8           # the transmit register
        .set    SLEEP, 0x600            # the ACPI sleep control register
        .set    SLEEP_NOW_S5, 0x34      # SLP_EN | S5 << SLP_TYPx

        .section .rodata.firecrest_hello_guest, "a", @progbits
        .balign 16
        .globl  firecrest_hello_guest
        .hidden firecrest_hello_guest
        .globl  firecrest_hello_guest_end
        .hidden firecrest_hello_guest_end

firecrest_hello_guest:
.Lelf:  .byte   0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
        .short  2, 62                   # ET_EXEC, x86-64
        .long   1
        .quad   LOAD + .Lentry - .Lelf
        .quad   .Lsegment - .Lelf       # program headers
        .quad   0                       # no sections
        .long   0
        .short  64, 56, 1, 64, 0, 0     # one program header
.Lsegment:
        .long   1, 5                    # PT_LOAD, read and execute
        .quad   0, LOAD, LOAD           # file offset, virtual and physical address
        .quad   .Lend - .Lelf, .Lend - .Lelf
        .quad   0x1000

        .code64
.Lentry:
        movzbl  0x1e8(%rsi), %ecx       # entries of the e820 memory map
        lea     0x2d0(%rsi), %rbx       # { u64 address, u64 size, u32 type }
        xor     %ebp, %ebp
.Lrange:
        test    %ecx, %ecx
        jz      .Lsummed
        cmpl    $1, 16(%rbx)            # usable memory?
        jne     .Lnext
        add     8(%rbx), %rbp
.Lnext: add     $20, %rbx
        dec     %ecx
        jmp     .Lrange
.Lsummed:
        add     $0xfffff, %rbp          # whole MiB, rounded up: a few KiB below 1 MiB are not usable
        shr     $20, %rbp

        lea     .Lhello(%rip), %rsi
        call    .Lprint
        mov     %rbp, %rax
        call    .Lnumber
        lea     .Lmemory(%rip), %rsi
        call    .Lprint

        mov     $1, %eax
        cpuid
        mov     $1, %eax
        bt      $28, %edx               # HTT: is the number of logical processors given?
        jnc     .Lcpus
        shr     $16, %ebx
        movzbl  %bl, %eax
.Lcpus: mov     %eax, %ebp
        call    .Lnumber
        lea     .Lcpu(%rip), %rsi
        cmp     $1, %ebp
        je      .Llast
        lea     .Lcpu_plural(%rip), %rsi
.Llast: call    .Lprint

        mov     $SLEEP, %edx
        mov     $SLEEP_NOW_S5, %al
        out     %al, %dx
.Lhalt: hlt
        jmp     .Lhalt

# Prints the NUL-terminated text at %rsi.
.Lprint:
        mov     $SERIAL, %edx
.Lbyte: mov     (%rsi), %al
        test    %al, %al
        jz      .Lprinted
        out     %al, %dx
        inc     %rsi
        jmp     .Lbyte
.Lprinted:
        ret

# Prints %rax in decimal: the digits before the last one first, by calling itself.
.Lnumber:
        xor     %edx, %edx
        mov     $10, %ecx
        div     %rcx
        push    %rdx
        test    %rax, %rax
        jz      .Ldigit
        call    .Lnumber
.Ldigit:
        pop     %rax
        add     $'0', %al
        mov     $SERIAL, %edx
        out     %al, %dx
        ret

.Lhello:        .asciz  "Hello from a Firecrest microVM: "
.Lmemory:       .asciz  " MiB of memory, "
.Lcpu:          .asciz  " CPU.\n"
.Lcpu_plural:   .asciz  " CPUs.\n"
.Lend:
firecrest_hello_guest_end:
        .previous
