#!/bin/sh
# In the guest, in /job/files: run Python on what was built outside.
set -eu
cp -a root/. /
export PYRUNC_UNDER_TEST="${PYRUNC_UNDER_TEST:-/usr/local/bin/pyrunc}" PYRUNC_TEST_PROBE=/job/files/probe PYRUNC_TEST_CLIENT=/job/files/client PYTHONPATH=/job/files/python
if [ -n "${PYRUNC_VM_SWAP:-}" ]; then
    fallocate -l "$PYRUNC_VM_SWAP" /swap
    chmod 600 /swap
    mkswap -q /swap
    swapon /swap
fi
cd src
status=0
python3 "$@" || status=$?
if [ -s "${PYRUNC_VM_RESULT:-}" ]; then # machine.py takes it out of the output
    printf '\n\0VMFILE %s %s\n' "$(cat /job/nonce)" "$(wc -c <"$PYRUNC_VM_RESULT")"
    cat "$PYRUNC_VM_RESULT"
fi
exit "$status"
