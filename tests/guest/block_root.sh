# The root file system is a disk; write to it, and leave it clean.
. /run/common.sh

say "root=$(grep ' / ' /proc/mounts | tail -n 1)"
say "sectors=$(cat /sys/block/vda/size)"
must pattern write /written 0 $((8 * MIB)) 1
# Every page of the programs comes from the disk once more.
forget /dev/vda
must pattern check /written 0 $((8 * MIB)) 1
must mount -o remount,ro /
