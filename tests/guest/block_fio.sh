# A file system on the second disk, random reads and writes of all sizes with every block verified, a clean unmount.
. /run/common.sh

must mke2fs -q -t ext4 /dev/vdb
must mount /dev/vdb /mnt
must pattern write /mnt/pattern 0 $((8 * MIB)) 2
# One job on each CPU, and so through every queue; all that was written is read again at the end.
cpus=$(nproc)
fio --name=verify --directory=/mnt --thread --numjobs="$cpus" --cpus_allowed=0-$((cpus - 1)) \
    --cpus_allowed_policy=split --size="$(word fc.mib)m" --bsrange=4k-1m --rw=randrw \
    --direct=1 --ioengine=libaio --iodepth=8 \
    --verify=crc32c --verify_fatal=1 --verify_backlog=16 --do_verify=1 \
    --group_reporting --minimal >/tmp/fio 2>>/tmp/log || die "fio"
say "fio_error=$(cut -d';' -f5 /tmp/fio)"
say "fio_read_kib=$(cut -d';' -f6 /tmp/fio)"
say "fio_written_kib=$(cut -d';' -f47 /tmp/fio)"
checkpoint worked
must umount /mnt
forget /dev/vdb
must mount -o ro /dev/vdb /mnt
must pattern check /mnt/pattern 0 $((8 * MIB)) 2
must umount /mnt
