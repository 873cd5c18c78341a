#!/bin/sh
# PID 1 of the lab: prepares what programs under test use, runs the one that was brought along, reports its exit code.
# This script's own output goes to the second serial port, where the kernel writes too.
export PATH=/bin:/sbin HOME=/root TERM=dumb

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
mount -t cgroup2 cgroup /sys/fs/cgroup

while read -r module || [ -n "$module" ]; do
    insmod "/modules/$module.ko"
done </modules/order
ip link set lo up

stty -F /dev/ttyS0 raw -echo
input=/dev/null
[ -e /lab/.stdin ] && input=/dev/ttyS0
/lab/.run <$input >/dev/ttyS0 2>&1
code=$?

# More than once: the kernel may write into the middle of a line.
for i in 1 2 3; do
    echo "FIRECREST-LAB-EXIT-CODE=$code;"
done
poweroff -f
