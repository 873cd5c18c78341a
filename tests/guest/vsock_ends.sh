# How streams end that do not end well, and a driver that is taken away and given back.
. /run/common.sh

# A port nobody has.
error=$(pattern call vsock:2:9999 1 1 1 2>&1) && die "connected to nobody"
say "nobody=$error"
checkpoint nobody

# The host's program dies while the guest reads from it, and while the guest writes to it.
pattern hold vsock:2:7002 || die "hold"
error=$(pattern call vsock:2:7003 1 $((1 << 40)) 0 2>&1) && die "wrote to the dead"
say "dead=$error"

set -- /sys/bus/virtio/drivers/*vsock*
driver=$(basename "$1")
for device in /sys/bus/virtio/drivers/"$driver"/virtio*; do
    rebind "$driver" "$(basename "$device")"
    rebind "$driver" "$(basename "$device")"
done
pattern call vsock:2:7000 4 $MIB $MIB || die "call"
pattern serve vsock:2:7001 4 || die "serve"
say rebound=ok
