#!/bin/busybox sh
# First process of the guest. Its root becomes the host's own, read-only over 9p, under an overlay in memory: everything
# that is installed on the host runs in the guest, and nothing that the guest does reaches the host but by the share.
bb=/bin/busybox
for dir in proc sys dev lower upper merged; do $bb mkdir -p /$dir; done
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1

fail() {
  echo "init: $*"
  $bb reboot -f
}

while read -r module; do
  $bb insmod "/modules/$module" || echo "init: cannot load $module"
done </modules/order

share=/mnt/pando
# Where on the host this kernel's modules are comes by the kernel's command line.
for word in $($bb cat /proc/cmdline); do
  case $word in
    pando.modules=*) modules=${word#*=} ;;
  esac
done

options=trans=virtio,version=9p2000.L,msize=512000
$bb mount -t 9p -o "$options,cache=loose,ro" root /lower || fail "no root share"
$bb mount -t tmpfs -o mode=755 tmpfs /upper
$bb mkdir /upper/data /upper/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /merged ||
  fail "no overlay"
# The kernel's own modules, so that modprobe (and the kernel by itself) can load what is not loaded yet.
$bb mkdir -p /merged/lib/modules /merged/proc /merged/sys /merged/dev /merged/run /merged/tmp "/merged$share"
$bb mount -o bind "/lower$modules" /merged/lib/modules || echo "init: no modules"

$bb mount -t proc proc /merged/proc
$bb mount -t sysfs sysfs /merged/sys
$bb mount -t configfs configfs /merged/sys/kernel/config
$bb mount -t cgroup2 cgroup2 /merged/sys/fs/cgroup
$bb mount -t devtmpfs devtmpfs /merged/dev
$bb mkdir -p /merged/dev/pts /merged/dev/shm
$bb mount -t devpts devpts /merged/dev/pts
$bb mount -t tmpfs tmpfs /merged/dev/shm
$bb mount -t tmpfs -o mode=755 tmpfs /merged/run
$bb mkdir -p /merged/run/lock /merged/run/nvme
# Writes go through at once: the host reads results while the guest runs.
$bb mount -t 9p -o "$options,cache=none" share "/merged$share" || fail "no writable share"

$bb hostname pando-vm
$bb ip link set lo up
$bb ip link set eth0 up
$bb ip addr add 10.0.2.15/24 dev eth0
$bb ip route add default via 10.0.2.2

$bb umount /proc /sys /dev 2>/dev/null
exec $bb switch_root /merged /bin/sh "$share/agent.sh"
