# What the scripts share; each begins with `. /run/common.sh`. Lines that begin with FC are for the test to read.

say() {
    echo "FC $*"
}

# Ends the script, and with it the guest; the test shows everything on the console.
die() {
    [ -e /tmp/log ] && tail -n 30 /tmp/log
    dmesg | tail -n 15
    say "failed=$*"
    exit 1
}

# What it has to say is of interest only if it fails.
must() {
    "$@" >>/tmp/log 2>&1 || die "$*"
}

must_not() {
    "$@" >>/tmp/log 2>&1 && die "worked, but should not: $*"
    true
}

# The value of a word of the command line.
word() {
    for w in $(cat /proc/cmdline); do
        case $w in "$1="*) echo "${w#*=}" ;; esac
    done
}

# Tells the test where we are, and waits for its leave to go on.
checkpoint() {
    say "at=$1"
    read -r line
    [ "$line" = "after $1" ] || die "the test answered '$line' to $1"
}

# Waits until a command succeeds.
until_true() {
    tries=0
    while ! "$@" >>/tmp/log 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || die "waited in vain: $*"
        usleep 100000
    done
}

# Nothing of a disk is answered from memory any more.
forget() {
    for disk in "$@"; do
        must blockdev --flushbufs "$disk"
    done
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

# The virtio device under a device of a class: `virtio_of /sys/block/vdb`.
virtio_of() {
    basename "$(readlink -f "$1/device")"
}

# Takes a driver from its device, which resets the device, and gives it back: `rebind virtio_blk virtio1`.
rebind() {
    echo "$2" >"/sys/bus/virtio/drivers/$1/unbind" || die "unbind $*"
    [ ! -e "/sys/bus/virtio/drivers/$1/$2" ] || die "still bound: $*"
    echo "$2" >"/sys/bus/virtio/drivers/$1/bind" || die "bind $*"
}

# The test types on this console; it need not see it.
stty -echo
MIB=$((1 << 20))
