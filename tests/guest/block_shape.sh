# What the guest sees of its disks, and what it can and cannot do with them:
# vdb is writable, vdc read-only, vdd full of a pattern that is partly discarded and zeroed.
. /run/common.sh

for disk in vdb vdc; do
    queue=/sys/block/$disk/queue
    say "$disk.serial=$(cat /sys/block/$disk/serial)"
    say "$disk.ro=$(cat /sys/block/$disk/ro)"
    say "$disk.block_size=$(cat $queue/logical_block_size)"
    say "$disk.sectors=$(cat /sys/block/$disk/size)"
    say "$disk.queues=$(ls /sys/block/$disk/mq | wc -l)"
    say "$disk.cache=$(cat /sys/block/$disk/cache_type)"
    say "$disk.can_discard=$([ "$(cat $queue/discard_max_bytes)" -gt 0 ] && echo yes || echo no)"
done

# Read-only: every byte can be read and none written.
must pattern check /dev/vdc 0 $((8 * MIB)) 3
must_not pattern write /dev/vdc 0 4096 9
must_not dd if=/dev/zero of=/dev/vdc bs=4096 count=1 conv=notrunc oflag=direct
must_not blkdiscard -f -o 0 -l $MIB /dev/vdc
forget /dev/vdc
must pattern check /dev/vdc 0 $((8 * MIB)) 3
say readonly=ok

# A range is given back, another zeroed; what is around them stays.
must blkdiscard -f -o $((16 * MIB)) -l $((32 * MIB)) /dev/vdd
must blkdiscard -f -z -o $((56 * MIB)) -l $((4 * MIB)) /dev/vdd
forget /dev/vdd
must pattern check /dev/vdd 0 $((16 * MIB)) 4
must pattern check /dev/vdd $((48 * MIB)) $((8 * MIB)) 4
must pattern check /dev/vdd $((60 * MIB)) $((4 * MIB)) 4
must cmp -n $((4 * MIB)) /dev/zero /dev/vdd 0 $((56 * MIB))
say discarded=ok

# A file system gives back what was deleted from it.
must mke2fs -q -t ext4 -E nodiscard /dev/vdb
must mount /dev/vdb /mnt
must pattern write /mnt/file 0 $((32 * MIB)) 5
sync
checkpoint filled
must rm /mnt/file
sync
must fstrim /mnt
checkpoint trimmed
must umount /mnt

# Taken from its driver and given back, the disk is what it was.
device=$(virtio_of /sys/block/vdb)
for round in 1 2 3; do
    must pattern write /dev/vdb 0 $((4 * MIB)) $((10 + round))
    rebind virtio_blk "$device"
    until_true test -b /dev/vdb
    must pattern check /dev/vdb 0 $((4 * MIB)) $((10 + round))
done
say "rebound=$(cat /sys/block/vdb/serial)"
