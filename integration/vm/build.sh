#!/bin/sh
# In the guest, in /job/files: build from nothing but the sources, and hand out what was built.
set -eu
export TMPDIR=/var/tmp # /tmp is a tmpfs of half the memory
# The host compiled the packages' modules; those of pyrunc are compiled when they are first used.
export PIP_NO_INDEX=1 PIP_NO_COMPILE=1
cd src
mkdir -p .venv/stamps
touch .venv/stamps/venv .venv/stamps/test # the host installed everything
make --no-print-directory build
set -- .venv/bin/pyrunc .venv/lib/python3*/site-packages/pyrunc* .venv/stamps build pyrunc/_*
tar -cf /var/tmp/built.tar "$@"
printf '\n\0VMFILE %s %s\n' "$(cat /job/nonce)" "$(wc -c </var/tmp/built.tar)" # machine.py takes it out of the output
cat /var/tmp/built.tar
