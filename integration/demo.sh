#!/usr/bin/env bash
# demo.sh PYRUNC: make a bundle from the host's static busybox, run it, look around inside, leave
# nothing behind.
set -eu -o pipefail
pyrunc=$(realpath "$1")
if [ "$(id -u)" != 0 ]; then
    echo "make demo needs root: the container's namespaces and mounts are made without a user namespace" >&2
    exit 1
fi
dir=$(mktemp -d)
id=demo-$$
cleanup() {
    "$pyrunc" delete --force "$id" >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap cleanup EXIT

mkdir -p "$dir/rootfs"/{bin,etc,proc,sys,dev,tmp,root}
cp "$(command -v busybox)" "$dir/rootfs/bin/busybox"
chmod 0755 "$dir" "$dir/rootfs"
for applet in sh uname ps mount id hostname echo cat grep; do
    ln -s busybox "$dir/rootfs/bin/$applet"
done
echo "root:x:0:0:root:/root:/bin/sh" >"$dir/rootfs/etc/passwd"
echo "root:x:0:" >"$dir/rootfs/etc/group"

cat >"$dir/look-around" <<'SCRIPT'
for command in "uname -a" "id" "ps -o pid,user,args" "mount" "cat /proc/self/cgroup" "grep -E ^(Cap...|NoNewPrivs|Seccomp): /proc/self/status"; do
    echo "# $command"
    $command
    echo
done
SCRIPT
cp "$dir/look-around" "$dir/rootfs/bin/look-around"

echo "\$ pyrunc spec --bundle $dir"
"$pyrunc" spec --bundle "$dir"
# The default configuration, without a terminal and with our program.
sed -i -e 's/"terminal": *true/"terminal": false/' -e '/"args": *\[/{n;s/"sh"/"sh", "\/bin\/look-around"/}' "$dir/config.json"
echo "\$ pyrunc run --bundle $dir $id"
"$pyrunc" run --bundle "$dir" "$id"
cat <<NEXT
That was a container: its own processes, mounts, host name and cgroup, and few capabilities.  What next:
    $1 plan --bundle DIR          # what a config.json makes pyrunc do, step by step
    $1 run --image IMAGE demo     # a shell in an image, see README.md
    $1 help                       # all commands
NEXT
