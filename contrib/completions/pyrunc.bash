# bash completion for pyrunc.  Written by contrib/generate.py from the tables of options; do not edit.

# What follows an option: dir, file, "words ..." or "any"; nothing for options without a value.
_pyrunc_value() {
    case "$1 $2" in
        ' --root') echo 'dir' ;;
        ' --log' | ' --trace' | ' --criu') echo 'file' ;;
        ' --log-format') echo 'words text json' ;;
        ' --cgroup-manager') echo 'words cgroupfs systemd disabled' ;;
        ' --rootless') echo 'words true false auto' ;;
        'checkpoint --image-path' | 'checkpoint --work-path' | 'checkpoint --parent-path') echo 'dir' ;;
        'checkpoint --manage-cgroups-mode' | 'checkpoint --empty-ns' | 'checkpoint --network-lock' | 'checkpoint --page-server' | 'checkpoint --status-fd') echo 'any' ;;
        'create --bundle' | 'create -b' | 'create --store' | 'create --cert-dir') echo 'dir' ;;
        'create --config' | 'create -f' | 'create --console-socket' | 'create --pidfd-socket' | 'create --pid-file' | 'create --authfile') echo 'file' ;;
        'create --preserve-fds' | 'create --image' | 'create --pull' | 'create --platform' | 'create --mirror') echo 'any' ;;
        'doctor --bundle' | 'doctor -b') echo 'dir' ;;
        'events --interval' | 'events --format' | 'events -f') echo 'any' ;;
        'exec --process' | 'exec -p' | 'exec --console-socket' | 'exec --pid-file' | 'exec --pidfd-socket') echo 'file' ;;
        'exec --preserve-fds' | 'exec --env' | 'exec -e' | 'exec --user' | 'exec -u' | 'exec --additional-gids' | 'exec -g' | 'exec --cap' | 'exec -c' | 'exec --apparmor' | 'exec --process-label' | 'exec --cgroup') echo 'any' ;;
        'exec --cwd' | 'exec --tools') echo 'dir' ;;
        'images --store' | 'images --cert-dir') echo 'dir' ;;
        'images --referrers' | 'images --platform' | 'images --limit' | 'images --mirror') echo 'any' ;;
        'images --authfile') echo 'file' ;;
        'list --format' | 'list -f') echo 'words table json' ;;
        'plan --bundle' | 'plan -b') echo 'dir' ;;
        'plan --config' | 'plan -f' | 'plan --exec') echo 'file' ;;
        'ps --format' | 'ps -f') echo 'words table json' ;;
        'restore --bundle' | 'restore -b' | 'restore --image-path' | 'restore --work-path' | 'restore --parent-path') echo 'dir' ;;
        'restore --config' | 'restore -f' | 'restore --pid-file' | 'restore --console-socket') echo 'file' ;;
        'restore --manage-cgroups-mode' | 'restore --empty-ns' | 'restore --network-lock' | 'restore --lsm-profile' | 'restore --lsm-mount-context' | 'restore --preserve-fds') echo 'any' ;;
        'run --bundle' | 'run -b' | 'run --store' | 'run --cert-dir') echo 'dir' ;;
        'run --config' | 'run -f' | 'run --console-socket' | 'run --pidfd-socket' | 'run --pid-file' | 'run --authfile') echo 'file' ;;
        'run --preserve-fds' | 'run --image' | 'run --pull' | 'run --platform' | 'run --mirror') echo 'any' ;;
        'seccomp --bundle' | 'seccomp -b') echo 'dir' ;;
        'seccomp --output' | 'seccomp -o') echo 'file' ;;
        'seccomp --libc') echo 'words glibc musl none' ;;
        'spec --bundle' | 'spec -b') echo 'dir' ;;
        'trace --svg') echo 'file' ;;
        'unpack --platform' | 'unpack --limit' | 'unpack --mirror' | 'unpack --volumes') echo 'any' ;;
        'unpack --authfile') echo 'file' ;;
        'unpack --cert-dir') echo 'dir' ;;
        'update --resources' | 'update -r') echo 'file' ;;
        'update --blkio-weight' | 'update --cpu-period' | 'update --cpu-quota' | 'update --cpu-burst' | 'update --cpu-share' | 'update --cpu-rt-period' | 'update --cpu-rt-runtime' | 'update --cpu-idle' | 'update --cpuset-cpus' | 'update --cpuset-mems' | 'update --kernel-memory' | 'update --kernel-memory-tcp' | 'update --memory' | 'update --memory-reservation' | 'update --memory-swap' | 'update --pids-limit' | 'update --l3-cache-schema' | 'update --mem-bw-schema') echo 'any' ;;
    esac
}

_pyrunc_options() {
    case "$1" in
        '') echo '--root --log --log-format --debug --systemd-cgroup --cgroup-manager --rootless --trace --criu --help -h --version -v --licenses' ;;
        'checkpoint') echo '--image-path --work-path --parent-path --tcp-established --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --lazy-pages --network-lock --leave-running --pre-dump --page-server --status-fd --tcp-skip-in-flight --link-remap --help -h' ;;
        'create') echo '--bundle -b --config -f --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --seccomp-log --preserve-fds --image --pull --store --tty -t --platform --authfile --plain-http --cert-dir --mirror --help -h' ;;
        'delete') echo '--force -f --help -h' ;;
        'doctor') echo '--bundle -b --json --help -h' ;;
        'events') echo '--stats --interval --format -f --help -h' ;;
        'exec') echo '--process -p --detach -d --tty -t --console-socket --pid-file --pidfd-socket --preserve-fds --cwd --env -e --user -u --additional-gids -g --cap -c --no-new-privs --apparmor --process-label --cgroup --tools --ignore-paused --help -h' ;;
        'features') echo '--help -h' ;;
        'images') echo '--store --all -a --referrers --json --platform --force --limit --authfile --plain-http --cert-dir --mirror --quiet -q --help -h' ;;
        'kill') echo '--all -a --help -h' ;;
        'list') echo '--format -f --quiet -q --help -h' ;;
        'mounts') echo '--help -h' ;;
        'pause') echo '--help -h' ;;
        'plan') echo '--bundle -b --config -f --exec --json --no-pivot --help -h' ;;
        'ps') echo '--format -f --help -h' ;;
        'restore') echo '--bundle -b --config -f --detach -d --pid-file --console-socket --image-path --work-path --parent-path --tcp-established --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --lazy-pages --network-lock --tcp-close --lsm-profile --lsm-mount-context --no-subreaper --no-pivot --no-new-keyring --preserve-fds --help -h' ;;
        'resume') echo '--help -h' ;;
        'run') echo '--bundle -b --config -f --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --seccomp-log --preserve-fds --image --pull --store --tty -t --platform --authfile --plain-http --cert-dir --mirror --detach -d --keep --no-subreaper --help -h' ;;
        'seccomp') echo '--bundle -b --output -o --denied --libc --json --help -h' ;;
        'spec') echo '--bundle -b --rootless --help -h' ;;
        'start') echo '--help -h' ;;
        'state') echo '--help -h' ;;
        'trace') echo '--svg --json --all -a --help -h' ;;
        'unpack') echo '--platform --force --limit --authfile --plain-http --cert-dir --mirror --quiet -q --volumes --rootless --json --help -h' ;;
        'update') echo '--resources -r --blkio-weight --cpu-period --cpu-quota --cpu-burst --cpu-share --cpu-rt-period --cpu-rt-runtime --cpu-idle --cpuset-cpus --cpuset-mems --kernel-memory --kernel-memory-tcp --memory --memory-reservation --memory-swap --pids-limit --l3-cache-schema --mem-bw-schema --help -h' ;;
    esac
}

_pyrunc_ids() {
    pyrunc ${1:+--root "$1"} list --quiet 2>/dev/null
}

_pyrunc() {
    local cur=${COMP_WORDS[COMP_CWORD]} verb='' root='' last='' first='' word kind count=0 i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == '=' ]]; then
            continue
        elif [[ -n $last ]]; then
            [[ $last == --root ]] && root=$word
            last=''
        elif [[ $word == -* ]]; then
            [[ -n $(_pyrunc_value "$verb" "$word") ]] && last=$word
        elif [[ -z $verb ]]; then
            verb=$word
        else
            [[ -z $first ]] && first=$word
            count=$((count + 1))
        fi
    done
    [[ $cur == '=' ]] && cur=''
    if [[ -n $last ]]; then
        kind=$(_pyrunc_value "$verb" "$last")
        case $kind in
            dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
            file) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
            words*) mapfile -t COMPREPLY < <(compgen -W "${kind#words }" -- "$cur") ;;
        esac
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_pyrunc_options "$verb")" -- "$cur")
    elif [[ -z $verb ]]; then
        mapfile -t COMPREPLY < <(compgen -W "checkpoint create delete doctor events exec features images kill list mounts pause plan ps restore resume run seccomp spec start state trace unpack update help" -- "$cur")
    elif [[ $verb == help ]]; then
        mapfile -t COMPREPLY < <(compgen -W "checkpoint create delete doctor events exec features images kill list mounts pause plan ps restore resume run seccomp spec start state trace unpack update" -- "$cur")
    elif [[ $verb == kill && $count == 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -A signal -- "$cur" | grep ^SIG)
    elif [[ $count == 1 && ($verb == mounts) ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_pyrunc_ids "$root")" -- "$cur")
    elif [[ $count -gt 0 ]]; then
        case "$verb $first" in
            'images pull' | 'mounts add' | 'mounts remove' | 'seccomp explain' | 'seccomp check') mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        esac
    else
        case $verb in
            images) mapfile -t COMPREPLY < <(compgen -W 'list pull prune' -- "$cur") ;;
            mounts) mapfile -t COMPREPLY < <(compgen -W 'add remove' -- "$cur") ;;
            seccomp) mapfile -t COMPREPLY < <(compgen -W 'explain check' -- "$cur") ;;
            checkpoint | delete | events | exec | kill | pause | ps | restore | resume | start | state | update) mapfile -t COMPREPLY < <(compgen -W "$(_pyrunc_ids "$root")" -- "$cur") ;;
        esac
    fi
}

complete -o filenames -F _pyrunc pyrunc
