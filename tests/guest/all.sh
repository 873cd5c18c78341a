# Every device at once, for a while: each of three loops goes on until the time is over, and says how far it came.
. /run/net_common.sh

seconds=$(word fc.seconds)
uptime() {
    cut -d. -f1 /proc/uptime
}
end=$(($(uptime) + seconds))
interface_up
must mke2fs -q -t ext4 /dev/vdb
must mount /dev/vdb /mnt

disk() {
    fio --name=all --directory=/mnt --thread --numjobs=2 --size=16m --bsrange=4k-256k --rw=randrw --direct=1 \
        --ioengine=libaio --iodepth=4 --verify=crc32c --verify_fatal=1 --verify_backlog=16 \
        --time_based --runtime="$seconds" --group_reporting --minimal >/tmp/fio 2>>/tmp/log || die "fio"
    say "disk_kib=$(($(cut -d';' -f6 /tmp/fio) + $(cut -d';' -f47 /tmp/fio)))"
}

streams() { # NAME ADDRESS STREAMS BYTES
    rounds=0
    while [ "$(uptime)" -lt "$end" ]; do
        pattern call "$2" "$3" "$4" "$4" || die "$1 after $rounds rounds"
        rounds=$((rounds + 1))
    done
    say "$1_rounds=$rounds"
}

disk &
disk=$!
streams net tcp:10.0.0.1:7000 4 $((MIB / 2)) &
net=$!
streams vsock vsock:2:7000 8 $((MIB / 4)) &
vsock=$!
wait $disk || die disk
wait $net || die net
wait $vsock || die vsock
must umount /mnt
