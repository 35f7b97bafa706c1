#!/usr/bin/env bash
# debian.sh DIRECTORY: a root filesystem of Debian 13 with its engines in DIRECTORY/debian13, from
# the mirror that apt uses. It is kept; it is created again when the list of packages changes.
set -eu
[ $# = 1 ] || { echo "usage: debian.sh DIRECTORY" >&2; exit 2; }
packages=(
    podman buildah conmon crun runc catatonit netavark aardvark-dns passt uidmap
    docker.io docker-cli docker-buildx containerd tini iptables nftables
    containernetworking-plugins iproute2 procps ca-certificates
)
mkdir -p "$1/built"
root=$1/debian13 stamp=$1/built/debian13
[ "$(cat "$stamp" 2>/dev/null)" = "${packages[*]}" ] && exit
command -v mmdebstrap >/dev/null || { echo "no mmdebstrap" >&2; exit 1; }
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | head -n 1)
echo "installing Debian 13 and its engines, some minutes"
rm -rf "$root" "$stamp"
mmdebstrap --quiet --mode=root --variant=minbase --aptopt='Apt::Install-Recommends "false"' \
    --include="$(IFS=,; echo "${packages[*]}")" trixie "$root" "${mirror:-http://deb.debian.org/debian}"
echo "${packages[*]}" >"$stamp"
