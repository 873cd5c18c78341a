#!/bin/sh
# PID 1 of the lab: prepares what programs under test use, runs the one that was brought along, reports its exit code.
# This script's own output goes to the second serial port, where the kernel writes too.
# Programs that were brought along go before busybox's of the same name.
export PATH=/lab/bin:/bin:/sbin HOME=/root TERM=dumb

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
# With favordynmods KVM_CREATE_VM does not wait 10 ms for an RCU grace period, which says nothing about any monitor.
mount -t cgroup2 -o favordynmods cgroup /sys/fs/cgroup

while read -r module || [ -n "$module" ]; do
    insmod "/modules/$module.ko"
done </modules/order
ip link set lo up

say() { # more than once: the kernel may write into the middle of a line
    for i in 1 2 3; do
        echo "$1"
    done
}

# By this it is known that the machine has not frozen.
while :; do
    echo FIRECREST-LAB-ALIVE
    sleep 5
done &

# Open from here on, or what comes before the program opens it would be lost.
exec 3<>/dev/ttyS0
stty raw -echo <&3
say FIRECREST-LAB-STARTED
if [ -e /lab/.stdin ]; then
    /lab/.run <&3 >&3 2>&1 3<&-
else
    /lab/.run </dev/null >&3 2>&1 3<&-
fi
code=$?
# Closing waits until all of it is sent.
exec 3<&-

say "FIRECREST-LAB-EXIT-CODE=$code;"
poweroff -f
