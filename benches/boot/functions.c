/* A plugin of QEMU's emulation: how often each block of instructions was executed, by where it is in virtual memory and in
 * the machine's own. `cargo xtask profile` makes functions of that.
 *
 *   -plugin functions.so,out=FILE      at the end, FILE has a line for each: virtual address, place in QEMU's memory (both
 *                                      hexadecimal), instructions in the block, times executed
 *
 * What is used of the interface (version 1, QEMU's include/qemu/qemu-plugin.h) is declared here: its header is part of no
 * Debian package that runs QEMU. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t id_t64;
struct block;
struct instruction;
extern void qemu_plugin_register_vcpu_tb_trans_cb(id_t64, void (*)(id_t64, struct block *));
extern void qemu_plugin_register_atexit_cb(id_t64, void (*)(id_t64, void *), void *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int, void *, uint64_t);
extern size_t qemu_plugin_tb_n_insns(const struct block *);
extern struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct instruction *);
extern void *qemu_plugin_insn_haddr(const struct instruction *);

#define PUBLIC __attribute__((visibility("default")))
enum { ADD = 0, BUCKETS = 1 << 16 };

PUBLIC int qemu_plugin_version = 1;

/* Blocks are translated again and again; each is one entry. */
struct entry {
    struct entry *next;
    uint64_t virtual, place, instructions, executed;
};
static struct entry *buckets[BUCKETS];
static char *path;

static void translated(id_t64 id, struct block *block) {
    (void)id;
    uint64_t count = qemu_plugin_tb_n_insns(block);
    if (!count)
        return;
    const struct instruction *first = qemu_plugin_tb_get_insn(block, 0);
    uint64_t virtual = qemu_plugin_insn_vaddr(first), place = (uintptr_t)qemu_plugin_insn_haddr(first);
    struct entry **bucket = &buckets[(virtual ^ virtual >> 16 ^ place >> 12 ^ count * 7919) % BUCKETS], *entry;
    for (entry = *bucket; entry; entry = entry->next)
        if (entry->virtual == virtual && entry->place == place && entry->instructions == count)
            break;
    if (!entry) {
        entry = calloc(1, sizeof *entry);
        if (!entry)
            abort();
        *entry = (struct entry){.next = *bucket, .virtual = virtual, .place = place, .instructions = count};
        *bucket = entry;
    }
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &entry->executed, 1);
}

static void ended(id_t64 id, void *unused) {
    (void)id, (void)unused;
    FILE *out = fopen(path, "w");
    if (!out)
        abort();
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct entry *e = buckets[i]; e; e = e->next)
            if (e->executed)
                fprintf(out, "%" PRIx64 " %" PRIx64 " %" PRIu64 " %" PRIu64 "\n", e->virtual, e->place, e->instructions,
                        e->executed);
    if (fclose(out))
        abort();
}

PUBLIC int qemu_plugin_install(id_t64 id, const void *info, int argc, char **argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4))
        return 1;
    path = strdup(argv[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return !path;
}
