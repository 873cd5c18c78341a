# Streams between guest and host. The host listens at port 7000, and calls at 7001.
. /run/common.sh

streams=$(word fc.streams)
bytes=$(word fc.bytes)
pattern call vsock:2:7000 "$streams" "$bytes" "$bytes" || die "call"
say called=ok
pattern serve vsock:2:7001 "$streams" || die "serve"
say served=ok
# Each end closes its direction first, and gets everything through the other.
pattern call vsock:2:7000 4 $MIB $MIB after-eof || die "call, half closed"
pattern serve vsock:2:7001 4 || die "serve, half closed"
say half_closed=ok
large=$(word fc.large)
pattern call vsock:2:7000 1 "$large" 0 || die "call, large"
pattern call vsock:2:7000 1 0 "$large" || die "call, large reply"
say large=ok
