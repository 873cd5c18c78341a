# The other end of the wire goes away in the middle of a transfer, and comes back; then the driver does.
. /run/net_common.sh

interface_up
pattern call tcp:10.0.0.1:7000 1 "$(word fc.bytes)" "$(word fc.bytes)" &
transfer=$!
checkpoint moving
wait $transfer || die "the transfer did not survive"
say survived=ok

device=$(virtio_of /sys/class/net/eth0)
for round in 1 2 3; do
    rebind virtio_net "$device"
    interface_up
done
exchange 4 $((MIB / 4))
say rebound=ok
