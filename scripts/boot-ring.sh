#!/bin/sh
# Switches the trace of a boot on from an initramfs, for `ebs-prewarm record --boot-ring` to begin with.
#
# The kernel's command line does this earlier, and should where it can be set (scripts/grub-record.cfg). What was
# read before this script ran, the partition table above all, is missing, and the recording says from when it saw.
# Source it or run it as root as soon as the initramfs runs, before the root filesystem is mounted; nothing has to
# stay behind: the kernel traces on across the change of root.
set -eu

tracefs=/sys/kernel/tracing
# Each processor's ring: some 60,000 requests, an issue and a completion each.
ring_kib=8192

[ -d $tracefs/instances ] || mount -t tracefs tracefs $tracefs
instance=$tracefs/instances/ebs-prewarm
mkdir $instance
# The clock first: to change it empties the ring.
echo mono >$instance/trace_clock
echo $ring_kib >$instance/buffer_size_kb
echo 1 >$instance/events/block/block_rq_issue/enable
echo 1 >$instance/events/block/block_rq_complete/enable
