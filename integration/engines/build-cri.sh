#!/usr/bin/env bash
# build-cri.sh DIRECTORY: build a current containerd, crictl and critest into DIRECTORY/bin, from the Go module proxy.
set -eu
containerd=v2.3.4
tools=v1.36.0
mkdir -p "$1/bin" "$1/module"
cd "$1"
export GOBIN=$PWD/bin CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=auto
[ "$(cat built 2>/dev/null)" = "$containerd $tools" ] && exit 0
command -v go >/dev/null || { echo "no Go compiler: make test-cri needs go 1.21 or later on the PATH" >&2; exit 1; }
echo "building containerd $containerd, crictl and critest $tools (some minutes)"
for program in containerd ctr containerd-shim-runc-v2; do
    go install -tags no_btrfs,no_zfs,no_devmapper "github.com/containerd/containerd/v2/cmd/$program@$containerd"
done
go install "sigs.k8s.io/cri-tools/cmd/crictl@$tools"
# critest is a test binary, which `go install` does not build.
cd module
[ -f go.mod ] || go mod init critest
go get -t "sigs.k8s.io/cri-tools/cmd/critest@$tools"
go test -c -o ../bin/critest sigs.k8s.io/cri-tools/cmd/critest
cd ..
echo "$containerd $tools" >built
