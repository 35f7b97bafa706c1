#!/usr/bin/env bash
# build.sh DIRECTORY PROGRAM...: build current engines and what drives them into DIRECTORY/bin, from
# the Go module proxy. A program of the pinned version that is already there is not built again.
set -eu
kubernetes=1.37.2
etcd=3.7.3
containerd=2.4.2
tools=1.37.0
shim=0.2.0 # the crate containerd-runc-shim
moby=2.0.0-beta.24 # Docker Engine 29
buildkit=0.34.2
go=1.26.8 # the oldest compiler that all of them accept
[ $# -gt 1 ] || { echo "usage: build.sh DIRECTORY PROGRAM..." >&2; exit 2; }
mkdir -p "$1/bin" "$1/built"
top=$(cd "$1" && pwd)
shift

command -v go >/dev/null || { echo "no Go compiler: any version on the PATH can fetch a current one" >&2; exit 1; }
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false ${GOFLAGS:-}" GOBIN=$top/bin GOTOOLCHAIN=auto GOWORK=off
# Since 1.21 the compiler fetches a newer one by itself; for an older one it is a module like any
# other.
if [ "$(printf '1.21\n%s\n' "$(go env GOVERSION | tr -d 'go')" | sort -V | head -n 1)" != 1.21 ]; then
    mkdir -p "$top/toolchain" && cd "$top/toolchain"
    [ -f go.mod ] || go mod init toolchain
    name=golang.org/toolchain@v0.0.1-go$go.$(go env GOOS)-$(go env GOARCH)
    root=$(go mod download -json "$name" | sed -n 's/^.*"Dir": "\(.*\)",*$/\1/p')
    chmod -R u+w "$root" && chmod +x "$root"/bin/* "$root"/pkg/tool/*/*
    PATH=$root/bin:$PATH
fi

# Kubernetes replaces its libraries by directories that its module does not contain. The published
# versions are the same.
kubernetes_module() {
    mkdir -p "$top/kubernetes" && cd "$top/kubernetes"
    [ "$(cat version 2>/dev/null)" = "$kubernetes" ] && return
    printf 'module kubernetes\ngo %s\nrequire k8s.io/kubernetes v%s\n' "$go" "$kubernetes" >go.mod
    module=$(go mod download -json "k8s.io/kubernetes@v$kubernetes" | sed -n 's/^.*"GoMod": "\(.*\)",*$/\1/p')
    sed -n "s#^\t\(k8s.io/[a-z-]*\) => ./staging.*#replace \1 => \1 v0.${kubernetes#*.}#p" "$module" >>go.mod
    echo "$kubernetes" >version
}

# A module for a package with tests that is not ours.
test_module() {
    mkdir -p "$1" && cd "$1"
    [ -f go.mod ] || go mod init "$1"
    go get -t "$2"
}

# tool_module NAME MODULE VERSION PACKAGE...: a module that requires programs of another.
tool_module() {
    mkdir -p "$1" && cd "$1"
    [ "$(cat version 2>/dev/null)" = "$3" ] && return
    printf 'module %s\ngo %s\nrequire %s %s\n' "$1" "$go" "$2" "$3" >go.mod
    version_of=$3 module=$2
    shift 3
    {
        printf '//go:build tools\n\npackage tools\n\n'
        printf 'import _ "%s"\n' "${@/#/$module/}"
    } >tools.go
    go get -tags tools "${@/#/$module/}"
    echo "$version_of" >version
}

build() {
    tags=no_btrfs,no_zfs,no_devmapper
    case $1 in
        containerd | ctr | containerd-shim-runc-v2)
            version=$containerd
            fetch="go install -tags $tags github.com/containerd/containerd/v2/cmd/$1@v$version"
            ;;
        runc-fp) # of containerd's tests: the program named runc, with failures on demand
            version=$containerd
            fetch="go install github.com/containerd/containerd/v2/integration/failpoint/cmd/runc-fp@v$version"
            ;;
        etcd) # `go install` refuses a module with replace directives
            version=$etcd
            fetch='mkdir -p etcd && cd etcd && printf "module etcd\ngo %s\nrequire go.etcd.io/etcd/server/v3 v%s\n" $go $version >go.mod &&
                go build -mod=mod -trimpath -ldflags "-s -w" -o $GOBIN/etcd go.etcd.io/etcd/server/v3'
            ;;
        kube-apiserver | kube-controller-manager | kube-scheduler | kubelet | kubectl)
            version=$kubernetes
            fetch='kubernetes_module && go build -mod=mod -trimpath -o $GOBIN/'$1' \
                -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$version" k8s.io/kubernetes/cmd/'$1
            ;;
        crictl)
            version=$tools
            fetch="go install sigs.k8s.io/cri-tools/cmd/crictl@v$version"
            ;;
        critest) # a test binary, which `go install` does not build
            version=$tools
            fetch='test_module critest sigs.k8s.io/cri-tools/cmd/critest@v$version &&
                go test -c -mod=mod -o $GOBIN/critest sigs.k8s.io/cri-tools/cmd/critest'
            ;;
        containerd-shim-runc-v2-rs) # containerd's shim in Rust, from its crate
            version=$shim
            fetch='cargo install --locked --quiet --version $version --root "$top/cargo" --target-dir "$top/cargo/target" \
                containerd-runc-shim && cp "$top/cargo/bin/$1" "$GOBIN/"'
            ;;
        dockerd)
            version=$moby
            fetch='go install -trimpath -ldflags "-s -w -X github.com/moby/moby/v2/dockerversion.Version=$version" github.com/moby/moby/v2/cmd/dockerd@v$version'
            ;;
        buildkitd | buildctl) # `go install` refuses the module, as for etcd
            version=$buildkit
            fetch='tool_module buildkit github.com/moby/buildkit v$version cmd/buildkitd cmd/buildctl &&
                go build -mod=mod -trimpath -ldflags "-s -w" -o $GOBIN/'$1' github.com/moby/buildkit/cmd/'$1
            ;;
        client.test) # containerd's own tests of its client
            version=$containerd
            package=github.com/containerd/containerd/v2/integration/client
            fetch='test_module client $package@v$version && go test -c -mod=mod -tags $tags -o $GOBIN/client.test $package'
            ;;
        *) echo "build.sh: unknown program $1" >&2; exit 2 ;;
    esac
    [ -x "$GOBIN/$1" ] && [ "$(cat "$top/built/$1" 2>/dev/null)" = "$version" ] && return
    echo "building $1 $version"
    (cd "$top" && eval "$fetch")
    echo "$version" >"$top/built/$1"
}

for program; do build "$program"; done
