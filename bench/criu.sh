#!/bin/sh
# Get a CRIU for the checkpoint tests into a private prefix; the system is not changed.
#
#   bench/criu.sh [PREFIX]        default: build/criu, where the tests find it
#
# Distributions of the same age as this machine's kernel may have a CRIU that is too old for it
# (Debian 12's 3.17 fails at `criu check` on Linux 6.18), so this takes the one of Debian 13 or
# newer. As in peers.sh, the packages come from the mirror that this machine's own apt sources name,
# are read with private lists, and are unpacked, not installed.
set -eu
cd "$(dirname "$0")/.."
prefix=${1:-build/criu}
if [ -x "$prefix/usr/sbin/criu" ] && "$prefix/usr/sbin/criu" --version >/dev/null 2>&1; then
    echo "criu: $prefix has $("$prefix/usr/sbin/criu" --version | head -n 1)"
    exit 0
fi
. bench/debian.sh

# Before 4.2 it cannot dump TCP sockets on Linux 6.16 and later (criu#2705).
choose criu 4.2 trixie testing unstable
[ -n "$chosen" ] || choose criu 0 trixie testing unstable
if [ -z "$chosen" ]; then
    echo "criu: no suite of the mirror has a criu" >&2
    exit 1
fi

# What the executable itself needs: the package also depends on Python for its other tools. crun
# loads libcriu2.
packages=$(apt "$chosen" apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances criu libcriu2 iptables | grep -E '^(criu|iptables|lib)[a-z0-9.+-]*$' | grep -vE '^libpython|^libcompel' | sort -u)
mkdir "$work/debs"
cd "$work/debs"
# shellcheck disable=SC2086 # one word per package
apt "$chosen" apt-get -qq download $packages
apt-get -qq -o APT::Sandbox::User=root download patchelf
cd - >/dev/null
rm -rf "$prefix"
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$prefix"; done

libraries=$(dirname "$(find "$prefix" -name 'libc.so.6' | head -n 1)")
loader=$(find "$libraries" -name 'ld-linux*' | head -n 1)
# DT_RPATH, not DT_RUNPATH: it also holds for the libraries' own libraries
for program in criu xtables-nft-multi; do
    "$prefix/usr/bin/patchelf" --set-interpreter "$loader" --set-rpath "$libraries" --force-rpath "$prefix/usr/sbin/$program"
done
# CRIU calls iptables by these names, which the package's script would have set up.
for name in iptables ip6tables; do
    for verb in "" -save -restore; do ln -sf xtables-nft-multi "$prefix/usr/sbin/$name$verb"; done
done
"$prefix/usr/sbin/criu" --version | head -n 1
"$prefix/usr/sbin/criu" check
