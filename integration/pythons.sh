#!/usr/bin/env bash
# pythons.sh [NAME...]: build pyrunc with CPython 3.11, 3.12, 3.13 and 3.14, and test each
# executable; then the same with the launchers for interpreters that cannot have a static one with a
# snapshot: no-snapshot, shared, exec.
#
# 3.11 and 3.12 are those of this machine (PATH or pyenv), 3.13 and 3.14 those of Debian 13 and
# Debian testing, in root filesystems that mmdebstrap makes once, in build/pythons. Each gets a copy
# of the tree, `make build`, tests/, a core of integration/, and `python -m bench.instructions`. The
# executables of this machine must also run with the libc of Debian 13 and testing alone. A launcher
# for others gets a life cycle. No version may execute more than 1.15 times the instructions of 3.11
# in any verb. PYTEST_ARGS replaces the list of tests, and PYTHONS_SECONDS limits each name.
set -eu
cd "$(dirname "$0")/.."
tree=$PWD place=$PWD/build/pythons limit=${PYTHONS_SECONDS:-3000} allowed=1.15
tests=${PYTEST_ARGS:-tests integration/test_lifecycle.py integration/test_exec.py integration/test_mounts.py
    integration/test_seccomp.py integration/test_one_file.py integration/test_images.py integration/test_process.py}
short=${PYTEST_ARGS:-integration/test_one_file.py integration/test_lifecycle.py}
packages=ca-certificates,python3,python3-dev,libpython3-dev,python3-venv,gcc,make,musl-tools,pkg-config,libseccomp-dev
packages+=,zlib1g-dev,libexpat1-dev,busybox-static,uidmap,strace,binutils,iproute2,util-linux,procps,git,runc,valgrind
test_tools=$(/usr/bin/python3 -c 'import tomllib; d = tomllib.load(open("pyproject.toml", "rb")); \
    print(*d["project"]["optional-dependencies"]["test"])')
declare -A suites=([3.13]=trixie [3.14]=testing)
declare -A options=([no-snapshot]=SNAPSHOT=disabled [shared]=LAUNCHER=shared [exec]=LAUNCHER=exec)
declare -A kinds=([no-snapshot]="static, no start-up snapshot" [shared]="shared, no start-up snapshot" [exec]="an interpreter's own")

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
    mkdir -p "$1/build"
    find "$1" -mindepth 1 -maxdepth 1 ! -name .venv ! -name build -exec rm -rf {} +
    git ls-files -co --exclude-standard -z | xargs -0 ls -d 2>/dev/null | tar -c -T - | tar -x -C "$1"
    # Tests list the files of the tree with git, and want a commit: the same one for the same files.
    git -C "$1" init -q && git -C "$1" add -A && GIT_AUTHOR_DATE=2000-01-01T00:00:00Z GIT_COMMITTER_DATE=2000-01-01T00:00:00Z \
        git -C "$1" -c user.name=copy -c user.email=copy commit -qm "copy of the sources"
    # The stamp stands for files beside the sources, and meson would keep the results of old checks.
    rm -rf "$1"/build/*.json "$1"/.venv/stamps/build "$1"/build/meson
    [ ! -e "$place/3.11.json" ] || cp "$place/3.11.json" "$1/build/"
}

# inside SUITE COMMAND...: run it in the root filesystem, whose root is a mount point, with the tree
# at /src
inside() {
    timeout -k 30 "$limit" unshare -m sh -ec '
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
        cd "$root" # in a chroot(2) there are no user namespaces
        pivot_root . .
        umount -l .
        exec chroot . /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin \
            PIP_CERT=/etc/ssl/certs/ca-certificates.crt sh -ec "cd /src; $*"' "$place/$1" "${@:2}"
}

# steps NAME PYTHON: the commands for one name
steps() {
    # The lists have several lines, a command has one.
    kind=${kinds[$1]:-static, start-up snapshot} tested=$(echo $tests) counted="--than build/3.11.json --at-most $allowed"
    [ -z "${options[$1]:-}" ] || tested=$(echo $short) counted=
    [ "$1" != exec ] || counted=--children
    [ "$1" != 3.11 ] || counted=
    echo "make build PYTHON=$2 ${options[$1]:-} && .ci/require test demo && .venv/bin/python -m pip install -q $test_tools || exit 1
        .venv/bin/pyrunc --version | grep -qx \"launcher: $kind\" || { echo \"FAILED the launcher is not $kind\"; failed=1; }
        .venv/bin/python -m pytest -q -rf $tested || failed=1"
    [ -n "${suites[$1]:-}" ] || [ "${kind%%,*}" != static ] || for suite in "${suites[@]}"; do
        echo "PYRUNC_TEST_LIBC=$place/$suite .venv/bin/python -m pytest -q -rf integration/test_one_file.py || failed=1"
    done
    echo ".venv/bin/python -m bench.instructions --json build/$1.json $counted || failed=1
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
root trixie
root testing
for name in ${*:-3.11 3.12 3.13 3.14 no-snapshot shared exec}; do
    log=$place/$name.log begun=$SECONDS copied=$place/$name version=$name
    rm -f "$place/$name.row"
    [ -z "${suites[$name]:-}" ] || copied=$place/${suites[$name]}/src
    [ -z "${options[$name]:-}" ] || version=3.11
    echo "$name: building and testing ($log)"
    copy "$copied"
    if [ -n "${suites[$name]:-}" ]; then
        inside "${suites[$name]}" "$(steps "$name" /usr/bin/python3)" >"$log" 2>&1 && result=passed || result=FAILED
    elif python=$(interpreter "$version"); then
        (cd "$copied" && timeout -k 30 "$limit" bash -c "$(steps "$name" "$python")") >"$log" 2>&1 && result=passed || result=FAILED
    else
        result="FAILED: no python$version on this machine (PATH, pyenv)"
    fi
    [ "$result" = passed ] || failed=1
    echo "$name: $result, $((SECONDS - begun)) s"
    [ ! -e "$copied/build/$name.json" ] || cp "$copied/build/$name.json" "$place/"
    grep -hE '^it starts slowly|^FAILED|^ERROR' "$log" | cut -c1-200 | sed 's/^/    /' || true
    passed=$(sed -n 's/.*\b\([0-9][0-9]* passed\).*/\1/p' "$log" | paste -sd+)
    kind=$(sed -n 's/^its launcher: //p' "$log" | tail -n 1)
    printf '%-12s %-24s %-7s %5s s  %s\n' "$name" "${kind:--}" "$result" $((SECONDS - begun)) "${passed:--}" >"$place/$name.row"
done
echo
cat "$place"/{3.11,3.12,3.13,3.14,no-snapshot,shared,exec}.row 2>/dev/null
.venv/bin/python -m bench.instructions --table "$place"/{3.11,3.12,3.13,3.14,no-snapshot,shared,exec}.json
[ -z "$failed" ]
