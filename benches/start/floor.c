/* The floor of a microVM's start: the KVM calls that cannot be left out, in the order that waits for nothing
 * (memory slot, split irqchip, vCPU), to the first exit of a guest of three instructions. No error is handled
 * beyond giving up, nothing is parsed, no thread is started. What a monitor takes beyond this is its own. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MEMORY = 128 << 20, CODE = 0x100000, STACK = 0x8000, TABLES = 0x9000, PAGE = 0x1000 };

static struct {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entries[256];
} cpuid;

static int must(int result) {
    if (result < 0)
        _exit(1);
    return result;
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, uint8_t longmode) {
    struct kvm_segment s = {.limit = ~0u, .selector = selector, .type = type, .present = 1, .s = 1, .g = 1};
    s.l = longmode;
    s.db = !longmode;
    return s;
}

/* Maps the first GiB one to one, with 2 MiB pages. */
static void map_pages(uint8_t *memory) {
    uint64_t *pml4 = (uint64_t *)(memory + TABLES), *pdpt = pml4 + 512, *pd = pdpt + 512;
    pml4[0] = (TABLES + PAGE) | 3;
    pdpt[0] = (TABLES + 2 * PAGE) | 3;
    for (uint64_t i = 0; i < 512; i++)
        pd[i] = i << 21 | 0x83;
}

int main(void) {
    /* mov $0xfe, %al; out %al, $0x64; hlt */
    static const uint8_t code[] = {0xb0, 0xfe, 0xe6, 0x64, 0xf4};

    int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    int vm = must(ioctl(kvm, KVM_CREATE_VM, 0));
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    uint8_t *memory = mmap(0, MEMORY, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    struct kvm_userspace_memory_region slot = {.memory_size = MEMORY, .userspace_addr = (uintptr_t)memory};
    must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};
    must(ioctl(vm, KVM_ENABLE_CAP, &split));

    int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0));
    int size = must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
    struct kvm_run *run = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        return 1;
    cpuid.head.nent = 256;
    must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid));
    must(ioctl(vcpu, KVM_SET_CPUID2, &cpuid));

    struct kvm_sregs sregs;
    must(ioctl(vcpu, KVM_GET_SREGS, &sregs));
    sregs.cs = segment(0x10, 11, 1);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(0x18, 3, 0);
    sregs.cr0 = 0x80000011;
    sregs.cr3 = TABLES;
    sregs.cr4 = 0x20;
    sregs.efer = 0x500;
    must(ioctl(vcpu, KVM_SET_SREGS, &sregs));
    map_pages(memory);
    memcpy(memory + CODE, code, sizeof code);
    struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rsp = STACK};
    must(ioctl(vcpu, KVM_SET_REGS, &regs));

    must(ioctl(vcpu, KVM_RUN, 0));
    return run->exit_reason == KVM_EXIT_IO ? 0 : 1;
}
