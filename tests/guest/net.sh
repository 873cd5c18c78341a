# What the guest sees of its interface, and data through it, checked on both ends.
. /run/net_common.sh

interface_up
say "mac=$(cat /sys/class/net/eth0/address)"
say "mtu=$(cat /sys/class/net/eth0/mtu)"
say "rx_queues=$(ls /sys/class/net/eth0/queues | grep -c rx)"
pairs=$(word fc.pairs)
if [ "$pairs" -gt 1 ]; then
    must ethtool -L eth0 combined 1
    must ping -c 1 -W 10 10.0.0.1
    must ethtool -L eth0 combined "$pairs"
fi
say "pairs=$(ethtool -l eth0 | sed -n '/Current/,$s/Combined:[^0-9]*//p')"
ping -c 5 -i 0.2 -W 10 -s 1000 10.0.0.1 >/tmp/ping || die "$(cat /tmp/ping)"
say "ping=$(sed -n 's/.* \([0-9]*\) packets received.*/\1/p' /tmp/ping)"
exchange "$(word fc.streams)" "$(word fc.bytes)"
say exchanged=ok

# Says how many bytes arrived at the other end.
iperf() {
    name=$1
    shift
    iperf3 -J -c 10.0.0.1 -t 3 -P 2 "$@" >/tmp/iperf 2>&1 || die "iperf3 $*: $(cat /tmp/iperf)"
    say "$name=$(awk '/"sum_received"/ { sum = 1 } sum && /"bytes"/ { gsub(/[^0-9]/, ""); print; exit }' /tmp/iperf)"
}
checkpoint iperf
iperf iperf_sent
iperf iperf_received -R
