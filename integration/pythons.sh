#!/usr/bin/env bash
# pythons.sh [VERSION...]: build pyrunc with CPython 3.11, 3.12, 3.13 and 3.14, and test each
# executable.
#
# 3.11 and 3.12 are those of this machine (PATH or pyenv), 3.13 and 3.14 those of Debian 13 and
# Debian testing, in root filesystems that mmdebstrap makes once, in build/pythons. Each gets a copy
# of the tree, `make build`, tests/, a core of integration/, and `python -m bench.instructions`.
# PYTEST_ARGS replaces the list of tests.
set -eu
cd "$(dirname "$0")/.."
tree=$PWD place=$PWD/build/pythons
tests=${PYTEST_ARGS:-tests integration/test_lifecycle.py integration/test_exec.py integration/test_mounts.py
    integration/test_seccomp.py integration/test_one_file.py integration/test_images.py integration/test_process.py}
packages=ca-certificates,python3,python3-dev,libpython3-dev,python3-venv,gcc,make,musl-tools,pkg-config,libseccomp-dev
packages+=,zlib1g-dev,libexpat1-dev,busybox-static,uidmap,strace,binutils,iproute2,util-linux,procps,git,runc,valgrind
test_tools=$(/usr/bin/python3 -c 'import tomllib; d = tomllib.load(open("pyproject.toml", "rb")); \
    print(*d["project"]["optional-dependencies"]["test"])')
declare -A suites=([3.13]=trixie [3.14]=testing)

# root SUITE: make its root filesystem, unless it is there
root() {
    [ -e "$place/$1/complete" ] && return
    command -v mmdebstrap >/dev/null || apt-get -q install -y --no-install-recommends mmdebstrap >/dev/null
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $2 == "main" { print $3; exit }')
    rm -rf "${place:?}/$1"
    # A mirror may be behind: its signature counts, not its date.
    mmdebstrap --aptopt='Acquire::Check-Valid-Until "false"' --variant=minbase --include=$packages \
        "$1" "$place/$1" "$mirror" >"$place/$1.log" 2>&1
    touch "$place/$1/complete"
}

# copy DIRECTORY: bring the sources there, and keep what was built
copy() {
    mkdir -p "$1"
    find "$1" -mindepth 1 -maxdepth 1 ! -name .venv ! -name build -exec rm -rf {} +
    git ls-files -co --exclude-standard -z | xargs -0 ls -d 2>/dev/null | tar -c -T - | tar -x -C "$1"
}

# inside SUITE COMMAND...: run it in the root filesystem, whose root is a mount point, with the tree
# at /src
inside() {
    unshare -m sh -ec '
        root=$0
        mount --make-rprivate /
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount --rbind /sys "$root/sys"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/run"
        mount -t tmpfs tmpfs "$root/tmp"
        cp /etc/resolv.conf "$root/etc/resolv.conf"
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
        exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin \
            PIP_CERT=/etc/ssl/certs/ca-certificates.crt sh -ec "cd /src; $*"' "$place/$1" "${@:2}"
}

# steps PYTHON: the commands for one version
steps() {
    echo "make build PYTHON=$1 && .ci/require test demo && .venv/bin/python -m pip install -q $test_tools || exit 1
        .venv/bin/python -m pytest -q -rf $tests || failed=1
        .venv/bin/python -m bench.instructions || failed=1
        exit \${failed:-0}"
}

# interpreter VERSION: a python of this machine
interpreter() {
    for found in /usr/bin/python$1 ~/.pyenv/versions/$1*/bin/python3 "$(command -v python$1)"; do
        [ -x "$found" ] && [ "$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$1" ] && echo "$found" && return
    done
    return 1
}

failed=
mkdir -p "$place"
for version in ${*:-3.11 3.12 3.13 3.14}; do
    log=$place/$version.log begun=$SECONDS
    echo "Python $version: building and testing ($log)"
    if [ -n "${suites[$version]:-}" ]; then
        root "${suites[$version]}"
        copy "$place/${suites[$version]}/src"
        inside "${suites[$version]}" "$(steps /usr/bin/python3)" >"$log" 2>&1 && result=passed || result=FAILED
    elif python=$(interpreter "$version"); then
        copy "$place/$version"
        (cd "$place/$version" && bash -c "$(steps "$python")") >"$log" 2>&1 && result=passed || result=FAILED
    else
        result="FAILED: no python$version on this machine (PATH, pyenv)"
    fi
    [ "$result" = passed ] || failed=1
    echo "Python $version: $result, $((SECONDS - begun)) s"
    grep -hE '^its launcher|^it starts slowly|^FAILED|^(create|run|exec|state) |[0-9]+ passed' "$log" 2>/dev/null | cut -c1-200 | sed 's/^/    /'
done
[ -z "$failed" ]
