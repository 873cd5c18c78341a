#!/bin/sh
# Measures one boot under a monitor, by KVM's own trace events; for the lab, where /bin/sh is busybox.
#
#   measure.sh time COMMAND...    nanoseconds from before exec to PID 1 (`init`), and to the monitor's end (`end`)
#   measure.sh count COMMAND...   nanoseconds to the first entry into the guest (`entry`); exits until PID 1: all of them
#                                 (`exits`), and those to user space (`user-exits`, `reason-NAME`)
#
# PID 1 is there when it asks for CPUID leaf 0x4fc10000 (init.S). Prints lines `boot: NAME VALUE`.
# Events that fire often are on in the second mode alone: writing one down takes instructions, too.
mode=$1
shift
tracing=/sys/kernel/tracing
[ -e $tracing/tracing_on ] || mount -t tracefs tracefs $tracing || exit 1
cd $tracing || exit 1

on() { # EVENT FILTER
    echo "$2" >"events/$1/filter" && echo 1 >"events/$1/enable" || exit 1
}

echo 0 >tracing_on
echo 0 >events/enable
echo nop >current_tracer
echo mono >trace_clock
echo >trace
on kvm/kvm_cpuid 'function == 0x4fc10000'
case $mode in
time) ;;
count)
    echo 32768 >buffer_size_kb
    on kvm/kvm_entry 0
    on kvm/kvm_exit 0
    on kvm/kvm_userspace_exit 0
    ;;
*)
    echo "boot: error there is no mode $mode"
    exit 2
    ;;
esac
echo 1 >tracing_on
(
    echo begin >trace_marker
    exec "$@"
) </dev/null >/tmp/boot.out 2>/tmp/boot.err
code=$?
echo end >trace_marker
echo 0 >tracing_on
echo 0 >events/enable

echo "boot: code $code"
echo "boot: output $(wc -c </tmp/boot.out)"
grep timeline /tmp/boot.err
# A name may have a space in it: the time is found by its form.
awk -v mode="$mode" '
    /LOST/ { print "boot: error the trace has lost events" }
    !match($0, / [0-9]+\.[0-9]+: /) { next }
    {
        split(substr($0, RSTART + 1, RLENGTH - 3), time, ".")
        now = time[1] * 1000000000 + time[2] * 1000
        rest = substr($0, RSTART + RLENGTH)
    }
    rest ~ /^tracing_mark_write: begin/ { begin = now }
    !begin { next }
    rest ~ /^kvm_entry:/ && !entry { entry = now; printf "boot: entry %d\n", now - begin }
    rest ~ /^kvm_cpuid:/ && !init { init = now; if (mode == "time") printf "boot: init %d\n", now - begin }
    rest ~ /^tracing_mark_write: end/ { if (mode == "time") printf "boot: end %d\n", now - begin }
    rest ~ /^kvm_exit:/ && !init { exits++ }
    rest ~ /^kvm_userspace_exit:/ && !init { split(rest, word, " "); user++; reasons[word[3]]++ }
    END {
        if (!init) print "boot: error PID 1 was not reached"
        if (user) printf "boot: exits %d\nboot: user-exits %d\n", exits, user
        for (reason in reasons) printf "boot: reason-%s %d\n", reason, reasons[reason]
    }
' trace
