# Run in a container by `cargo xtask run`.
show() { echo; echo "# $*"; "$@"; }
show uname -r
show hostname
show id
show ps -o pid,user,comm
show ls -l /proc/self/ns
echo; echo "# limits: memory, cpu, pids"
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max
echo; echo "# the root is an overlay"
grep ' / overlay' /proc/mounts
echo; echo "# and can be written to"
echo "written inside" > /hello && ls -l /hello && cat /hello
