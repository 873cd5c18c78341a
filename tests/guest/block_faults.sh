# What goes wrong on the host: vdb grows, vdc's host has no room for all of it, vdd's file is cut short.
. /run/common.sh

before=$(cat /sys/block/vdb/size)
say "sectors_before=$before"
checkpoint grow
grown() {
    [ "$(cat /sys/block/vdb/size)" -gt "$before" ]
}
until_true grown
after=$(cat /sys/block/vdb/size)
say "sectors_after=$after"
must pattern write /dev/vdb $((before * 512)) $(((after - before) * 512)) 6
must pattern check /dev/vdb 0 $((before * 512)) 6

# What fits is written and flushed; the rest fails, and says so.
must pattern write /dev/vdc 0 $((4 * MIB)) 7
error=$(pattern write /dev/vdc $((4 * MIB)) $((28 * MIB)) 8 2>&1) && die "wrote to a host that is full"
say "full=$error"
forget /dev/vdc
must pattern check /dev/vdc 0 $((4 * MIB)) 7

must pattern check /dev/vdd 0 $((8 * MIB)) 9
checkpoint cut
forget /dev/vdd
must pattern check /dev/vdd 0 $((4 * MIB)) 9
error=$(pattern check /dev/vdd $((4 * MIB)) $((4 * MIB)) 9 2>&1) && die "read what is not there"
say "cut=$error"
# An error of one disk is that one's own.
must pattern check /dev/vdb 0 $((after * 512)) 6
