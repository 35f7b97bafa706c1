#!/bin/sh
# install.sh install|remove|run: put pyrunc on the node that this pod runs on, or take it away
# again.
#
# `run` installs, waits for SIGTERM and removes. The pod needs hostPID, CAP_SYS_ADMIN,
# CAP_SYS_CHROOT and CAP_SYS_PTRACE: the node's files are below /proc/1/root, and the node's
# programs run in its mount namespace.
#
#   ENGINE      containerd or crio; default: the one whose socket exists
#   CONFIG      containerd's configuration file, /etc/containerd/config.toml
#   CRIO_CONFIG CRI-O's drop-in, /etc/crio/crio.conf.d/10-pyrunc.conf
#   RUNTIME     where the executable is put, /usr/local/bin/pyrunc
#   RESTART     the command that restarts the engine on the node; default: systemctl restart ENGINE
#   RUN         where engines keep their sockets and state, /run
#   NODE_NAME   the node to label; no label without it
set -eu
HOST=${HOST-/proc/1/root} # empty: this script runs on the node itself
HERE=$(cd "$(dirname "$0")" && pwd)
CONFIG=${CONFIG:-/etc/containerd/config.toml}
CRIO_CONFIG=${CRIO_CONFIG:-/etc/crio/crio.conf.d/10-pyrunc.conf}
RUNTIME=${RUNTIME:-/usr/local/bin/pyrunc}
RUN=${RUN:-/run}
LABEL=pyrunc/runtime
BEGIN='# begin: pyrunc-installer'
END='# end: pyrunc-installer'

fail() {
    echo "pyrunc-installer: $*" >&2
    exit 1
}

on_node() {
    if [ -n "$HOST" ]; then nsenter -t 1 -m -- "$@"; else "$@"; fi
}

engine() {
    case ${ENGINE:-} in
        containerd | crio) echo "$ENGINE" ;;
        '')
            if [ -S "$HOST$RUN/containerd/containerd.sock" ]; then
                echo containerd
            elif [ -S "$HOST$RUN/crio/crio.sock" ]; then
                echo crio
            else
                fail "neither containerd's nor CRI-O's socket exists below /run: set ENGINE"
            fi
            ;;
        *) fail "ENGINE=$ENGINE: expected containerd or crio" ;;
    esac
}

# The drop-in $1 without the lines that concern other runtimes: what pods use pyrunc is the
# RuntimeClass' decision. The cgroup driver must be the one that the rest of the node has. The table
# that names the default may be in the file already, and TOML allows it once.
drop_in() {
    systemd=false
    [ -z "${2:-}" ] || ! grep -qs '^ *SystemdCgroup *= *true' "$2" || systemd=true
    sed -e '/^default_runtime/d' -e '/^\[plugins\..*\.containerd\]$/d' -e '/^cgroup_manager/d' -e '/^conmon_cgroup/d' \
        -e "s/^SystemdCgroup = false/SystemdCgroup = $systemd/" -e "s#/usr/local/bin/pyrunc#$RUNTIME#" "$1"
}

# A configuration without our block.
without_block() {
    [ ! -e "$1" ] || sed "/^$BEGIN\$/,/^$END\$/d" "$1"
}

# Replace a file by standard input, in one step.
replace() {
    mkdir -p "$(dirname "$1")"
    cat >"$1.pyrunc-new"
    [ ! -e "$1" ] || chmod "$(stat -c %a "$1")" "$1.pyrunc-new"
    mv "$1.pyrunc-new" "$1"
}

# It takes its place only after it has run on this node.
put_executable() {
    mkdir -p "$HOST$(dirname "$RUNTIME")"
    cp "$HERE/pyrunc" "$HOST$RUNTIME.pyrunc-new"
    chmod 0755 "$HOST$RUNTIME.pyrunc-new"
    said=$(on_node "$RUNTIME.pyrunc-new" --version 2>&1) || {
        rm -f "$HOST$RUNTIME.pyrunc-new"
        fail "the executable does not run on this node: $said"
    }
    mv "$HOST$RUNTIME.pyrunc-new" "$HOST$RUNTIME"
    echo "pyrunc-installer: $RUNTIME is $(echo "$said" | head -n 1)"
}

configure_containerd() {
    file=$HOST$CONFIG
    first=
    if without_block "$file" | grep -q .; then
        version=$(sed -n 's/^version *= *\([0-9]*\).*/\1/p' "$file" | head -n 1)
    else
        case $(on_node "${CONTAINERD:-containerd}" --version) in *' 1.'* | *' v1.'*) version=2 ;; *) version=3 ;; esac
        first="version = $version"
    fi
    case $version in
        2) source=$HERE/containerd-1.toml ;;
        3) source=$HERE/containerd-2.toml ;;
        *) fail "$CONFIG has version ${version:-1}: expected 2 or 3" ;;
    esac
    without_block "$file" | grep -q 'runtimes\.pyrunc' && fail "$CONFIG has a handler pyrunc already"
    {
        without_block "$file"
        echo "$BEGIN"
        [ -z "$first" ] || echo "$first"
        drop_in "$source" "$file"
        echo "$END"
    } | replace "$file.pyrunc-try"
    # containerd names the first error of a configuration that it cannot load.
    said=$(on_node "${CONTAINERD:-containerd}" --config "$CONFIG.pyrunc-try" config dump 2>&1 >/dev/null) || {
        rm -f "$file.pyrunc-try"
        fail "containerd does not accept the new configuration: $said"
    }
    apply "$file.pyrunc-try" "$file"
}

configure_crio() {
    mkdir -p "$(dirname "$HOST$CRIO_CONFIG")"
    drop_in "$HERE/crio.conf" >"$HOST$CRIO_CONFIG.pyrunc-try"
    apply "$HOST$CRIO_CONFIG.pyrunc-try" "$HOST$CRIO_CONFIG"
}

# Use the new file and restart the engine, if it differs from the old one.
apply() {
    if [ -e "$2" ] && cmp -s "$1" "$2"; then
        rm -f "$1"
        echo "pyrunc-installer: ${2#"$HOST"} is up to date"
        return
    fi
    replace "$2" <"$1"
    rm -f "$1"
    restart
}

restart() {
    echo "pyrunc-installer: restarting $name"
    on_node sh -c "${RESTART:-systemctl restart $name}" || fail "cannot restart $name: ${RESTART:-systemctl restart $name}"
}

label() {
    [ -z "${NODE_NAME:-}" ] || kubectl label --overwrite node "$NODE_NAME" "$1"
}

install() {
    name=$(engine)
    put_executable
    "configure_$name"
    label "$LABEL=ready"
    echo "pyrunc-installer: installed"
}

# The label goes first, so that no more pods arrive. Pods that run keep their shims, which need the
# executable to the end.
remove() {
    name=$(engine)
    # With the DaemonSet's namespace the right to do so may be gone already.
    label "$LABEL-" || echo "pyrunc-installer: the label $LABEL of node $NODE_NAME could not be removed" >&2
    if [ "$name" = crio ]; then
        [ ! -e "$HOST$CRIO_CONFIG" ] || { rm -f "$HOST$CRIO_CONFIG" && restart; }
    elif grep -q "^$BEGIN\$" "$HOST$CONFIG" 2>/dev/null; then
        without_block "$HOST$CONFIG" | replace "$HOST$CONFIG"
        [ -s "$HOST$CONFIG" ] || rm -f "$HOST$CONFIG"
        restart
    fi
    if in_use; then
        echo "pyrunc-installer: containers still use $RUNTIME: it stays" >&2
    else
        rm -f "$HOST$RUNTIME"
    fi
    echo "pyrunc-installer: removed"
}

# A shim of containerd has the runtime's path in its options; CRI-O's containers are in the state
# root of its drop-in.
in_use() {
    grep -qs -- "$RUNTIME" "$HOST$RUN"/containerd/io.containerd.runtime.v2.task/*/*/options.json && return 0
    [ -n "$(ls -A "$HOST$RUN/pyrunc" 2>/dev/null)" ]
}

case ${1:-} in
    install | remove) "$1" ;;
    run)
        trap 'remove; exit 0' TERM INT
        install
        touch /tmp/installed # for the readiness probe
        while :; do
            sleep 3600 &
            wait $! || :
        done
        ;;
    *) fail "usage: install.sh install|remove|run" ;;
esac
