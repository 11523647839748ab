#!/bin/bash
# Init of L1 after the initramfs: brings the machine up, takes the job from the exchange disk (/dev/pmem1, a tar with
# `job`, `env` and `disks`), runs it, writes /out and the exit code back as a tar, powers off.
export PATH=/opt/dewar/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root TERM=${TERM:-linux} LANG=C.UTF-8
cd /

mkdir -p /run/lock /dev/pts /dev/shm /out /run/lab /opt/dewar
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /out
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
# Every controller is handed down, as systemd would; processes leave the root group.
mkdir -p /sys/fs/cgroup/lab && echo $$ >/sys/fs/cgroup/lab/cgroup.procs
for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "+$c" >/sys/fs/cgroup/cgroup.subtree_control; done 2>/dev/null
mount -t mqueue mqueue /dev/mqueue 2>/dev/null
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
ln -sf /proc/self/fd /dev/fd; ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout; ln -sf /proc/self/fd/2 /dev/stderr
hostname lab
ip link set lo up
ulimit -n 65536

tar -xf /dev/pmem1 -C /run/lab
. /run/lab/env
modprobe -a overlay irqbypass kvm kvm_amd fuse
# As udev has them.
chmod 666 /dev/kvm /dev/fuse
while read -r n where; do
  mkdir -p "$where"
  mount -t ext4 -o ro,noload "/dev/pmem$n" "$where" || echo "lab: $where is not mounted"
done </run/lab/disks

if [ -e /run/lab/job ]; then
  # The job's output goes over virtio ports, byte for byte; the console stays for the kernel.
  out=/dev/null err=/dev/null
  for p in /sys/class/virtio-ports/*; do
    case $(cat "$p/name" 2>/dev/null) in
      lab.out) out=/dev/${p##*/} ;;
      lab.err) err=/dev/${p##*/} ;;
    esac
  done
  (cd /root && exec bash /run/lab/job) </dev/null >"$out" 2>"$err"
  echo $? >/out/.rc
else
  setsid -c bash -l </dev/ttyS0 >/dev/ttyS0 2>&1
  echo $? >/out/.rc
fi
tar -C /out -cf /dev/pmem1 . 2>/dev/null || echo "lab: results do not fit on the exchange disk"
sync /dev/pmem1 2>/dev/null || sync
echo o >/proc/sysrq-trigger
sleep 60
