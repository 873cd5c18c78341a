# Keeps a disk and the network busy while the test counts exits: nothing is said meanwhile, each byte would be some.
. /run/net_common.sh

interface_up
while :; do
    fio --name=reads --filename=/dev/vdb --readonly --rw=randread --bs=4k --direct=1 --number_ios=2000 >/dev/null 2>&1
done &
reads=$!
checkpoint disk
kill $reads
wait 2>/dev/null
checkpoint network
