#!/bin/sh
# The guest's side of machine.py: receives a tar stream (cmd, nonce, now, files/...) on port vm.in,
# runs cmd, and copies its output to vm.out, ended by "\n\0VMRC nonce status\n".
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
if [ $$ = 1 ]; then # no systemd: the least that an init has to do
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs /run
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    mkdir -p /dev/pts /dev/shm /dev/mqueue
    mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mount -t mqueue mqueue /dev/mqueue
    ln -sf /proc/self/fd /dev/fd
    ln -sf fd/0 /dev/stdin
    ln -sf fd/1 /dev/stdout
    ln -sf fd/2 /dev/stderr
    mount --make-rshared /
    ip link set lo up
    hostname vm
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
    done
    # The root cgroup is where a limit cannot be read; what runs here has a cgroup of its own, as
    # under systemd.
    mkdir /sys/fs/cgroup/agent
    echo $$ >/sys/fs/cgroup/agent/cgroup.procs
fi
for port in /sys/class/virtio-ports/*; do
    case $(cat "$port/name") in
        vm.in) in=/dev/${port##*/} ;;
        vm.out) out=/dev/${port##*/} ;;
    esac
done
mkdir -p /run/vm /job
# A port cannot be opened twice (EBUSY), and a program may open /dev/stdout: hence the fifo.
mkfifo /run/vm/out
cat /run/vm/out >"$out" &
exec 9>/run/vm/out
printf '\0READY\n' >&9
tar -C /job -xpf - <"$in"
date -s "@$(cat /job/now)" >/dev/null 2>&1
if [ $$ = 1 ]; then
    setsid sh /job/cmd </dev/null >&9 2>&1 9>&-
else
    sh /job/cmd </dev/null >&9 2>&1 9>&-
fi
printf '\n\0VMRC %s %s\n' "$(cat /job/nonce)" "$?" >&9
while :; do sleep 60; done # the host ends the machine
