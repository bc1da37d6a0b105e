#!/bin/sh
# Switches the trace of a boot on from an initramfs, for `ebs-prewarm record --boot-ring` to begin with.
#
# The kernel's command line does this earlier, and should where it can be set (scripts/grub-record.cfg). What was
# read before this script ran, the partition table above all, is missing, and the recording says from when it saw.
# Run it as root as soon as the initramfs runs, before the root filesystem is mounted; nothing has to stay behind: the
# kernel traces on across the change of root.
#
# Holds: whatever fails here, the boot goes on, since an init that ends is a kernel that panics. So the exit code is 0 all
# the same, and where a hook is read into the initramfs' own shell that shell keeps its options and variables.

(
    tracefs=/sys/kernel/tracing
    instance=$tracefs/instances/ebs-prewarm
    # Each processor's ring: some 60,000 requests, an issue and a completion each.
    ring_kib=8192
    [ -d $tracefs/instances ] || mount -t tracefs tracefs $tracefs || exit
    # One that is there traces already, and a clock that is set empties its ring.
    [ ! -d $instance ] || exit 0
    mkdir -p $instance &&
        # The clock first: to change it empties the ring.
        echo mono >$instance/trace_clock &&
        echo $ring_kib >$instance/buffer_size_kb &&
        echo 1 >$instance/events/block/block_rq_issue/enable &&
        echo 1 >$instance/events/block/block_rq_complete/enable
) || echo "ebs-prewarm: failed to switch the trace of this boot on" >&2
