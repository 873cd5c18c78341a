#!/bin/sh
# PID 1 of the test guest: does what `fc.run=` or `fc.do=` on the kernel's command line asks for
# (`cargo xtask guest --help` lists the words), or else gives a shell on the console.
export PATH=/bin HOME=/root TERM=linux

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts 2>/dev/null
# Not over /run: the scripts are there.
mount -t tmpfs tmp /tmp

hostname guest

echo 'FC init'

word() { # the value of a word of the command line
    for w in $(cat /proc/cmdline); do
        case $w in "$1="*) echo "${w#*=}" ;; esac
    done
}

report() {
    echo "FC cpus=$(nproc)"
    while read -r name kib unit; do
        [ "$name" = MemTotal: ] && echo "FC memtotal_kib=$kib"
    done </proc/meminfo
    echo "FC clocksource=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
    echo "FC cmdline=$(cat /proc/cmdline)"
    echo 'FC initrd=ok'
}

clock() {
    i=0
    while [ $i -lt 60 ]; do
        read -r up rest </proc/uptime
        echo "FC tick $up $(date +%s)"
        usleep 100000
        i=$((i + 1))
    done
}

echo_lines() {
    stty -echo
    while read -r line; do
        [ "$line" = quit ] && break
        echo "FC got $line"
    done
}

shell() {
    export PS1='guest# '
    cd /root || cd /
    setsid cttyhack sh
}

act() {
    case $1 in
    report) report ;;
    clock) clock; poweroff -f ;;
    echo) echo_lines; poweroff -f ;;
    idle) while :; do sleep 100000; done ;;
    spin) while :; do :; done ;;
    shell) shell ;;
    poweroff) poweroff -f ;;
    reboot) reboot -f ;;
    halt) halt -f ;;
    panic)
        echo c >/proc/sysrq-trigger
        # Without sysrq: the kernel panics when PID 1 ends.
        exit 1
        ;;
    *) echo "FC unknown=$1" ;;
    esac
}

run=$(word fc.run)
if [ -n "$run" ]; then
    sh "/run/$run"
    echo "FC run=$run rc=$?"
    poweroff -f
fi

todo=$(word fc.do)
for step in $(echo "$todo" | tr , ' '); do
    act "$step"
done
[ -z "$todo" ] && shell
poweroff -f
# Where power-off does not end the machine.
while :; do sleep 100000; done
