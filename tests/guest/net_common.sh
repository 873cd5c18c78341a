# The interface of the network tests. The host is 10.0.0.1.
. /run/common.sh

interface_up() {
    until_true test -e /sys/class/net/eth0
    must ip link set eth0 up
    must ip addr add 10.0.0.2/24 dev eth0
    until_true ping -c 1 -W 1 10.0.0.1
}

# `exchange STREAMS BYTES`: so many streams with so many bytes in both directions, called from each side.
exchange() {
    pattern call tcp:10.0.0.1:7000 "$1" "$2" "$2" || die "call"
    pattern serve tcp:0.0.0.0:7001 "$1" || die "serve"
}
