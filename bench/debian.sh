# Sourced by peers.sh and criu.sh: packages of other suites of Debian, without a change to the
# system.
#
# The mirror is the one that this machine's own apt sources name. Sets $work, a directory that is
# removed at the end, $codename and $mirror.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

found=$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 == "main" && $3 !~ /-/ { print $3, $4; exit }')
codename=${found%% *} mirror=${found#* }
if [ -z "$found" ]; then
    echo "$0: no Debian main archive among this machine's apt sources" >&2
    exit 1
fi

# apt SUITE COMMAND...: apt with its own lists and cache
apt() {
    suite=$1
    shift
    mkdir -p "$work/$suite/lists/partial" "$work/$suite/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/$suite.list"
    "$@" -o Dir::Etc::sourcelist="$work/$suite.list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root \
        -o Dir::State::lists="$work/$suite/lists" -o Dir::Cache="$work/$suite/cache"
}

# choose NAME WANTED SUITE...: set $chosen to the first suite with this package, of version WANTED
# or later; "" for none
choose() {
    name=$1 wanted=$2 chosen=
    shift 2
    for suite in "$@"; do
        apt "$suite" apt-get -qq update 2>/dev/null || continue
        version=$(apt "$suite" apt-cache policy "$name" | awk '/Candidate:/ { print $2 }')
        echo "$suite: $name ${version:-none}"
        if [ -n "$version" ] && [ "$version" != "(none)" ] && dpkg --compare-versions "$version" ge "$wanted"; then
            chosen=$suite
            return
        fi
    done
}
