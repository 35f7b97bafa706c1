#!/bin/sh
# Get a crun that can be compared with (1.28 or later) and the newest runc into a private prefix;
# the system is not changed.
#
#   bench/peers.sh [PREFIX]        default: build/peers, where bench finds it
#
# The mirror is the one that this machine's own apt sources name. Suites are tried from the nearest
# to the newest; each is read with apt's own client into a private list directory, so no source is
# added to the system. The packages are unpacked, not installed: crun gets the interpreter and the
# libraries of its own release through its ELF header.
set -eu
wanted=1.28
cd "$(dirname "$0")/.."
prefix=${1:-build/peers}
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
. bench/debian.sh

choose crun "$wanted" "$codename-backports" testing unstable
if [ -z "$chosen" ]; then
    echo "peers: no crun >= $wanted in any suite of the mirror: compare with runc alone" >&2
    exit 1
fi

packages=$(apt "$chosen" apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances crun | grep -E '^(crun|lib)[a-z0-9.+-]*$' | sort -u)
mkdir "$work/debs"
cd "$work/debs"
# shellcheck disable=SC2086 # one word per package
apt "$chosen" apt-get -qq download $packages
apt-get -qq -o APT::Sandbox::User=root download patchelf
rm -rf "$prefix/crun" "$prefix/bin"
mkdir -p "$prefix/crun" "$prefix/bin"
for deb in *.deb; do dpkg -x "$deb" "$prefix/crun"; done

libraries=$(dirname "$(find "$prefix/crun" -name 'libc.so.6' | head -n 1)")
loader=$(find "$libraries" -name 'ld-linux*' | head -n 1)
# DT_RPATH, not DT_RUNPATH: it also holds for the libraries' own libraries
"$prefix/crun/usr/bin/patchelf" --set-interpreter "$loader" --set-rpath "$libraries" --force-rpath "$prefix/crun/usr/bin/crun"
ln -s ../crun/usr/bin/crun "$prefix/bin/crun"
"$prefix/bin/crun" --version | head -n 1

# The newest runc, from the Go module proxy, beside the distribution's: bench knows it as runc-new.
if ! command -v go >/dev/null || ! pkg-config --exists libseccomp; then
    echo "peers: no go, or no libseccomp-dev: compare with the distribution's runc alone"
    exit 0
fi
GOPATH="$work/go" GOBIN="$work/gobin" GOFLAGS=-modcacherw CGO_ENABLED=1 \
    go install -tags seccomp -ldflags '-s -w' github.com/opencontainers/runc@latest
mv "$work/gobin/runc" "$prefix/bin/runc-new"
"$prefix/bin/runc-new" --version | head -n 1
