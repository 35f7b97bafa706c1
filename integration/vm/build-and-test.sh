#!/bin/sh
# In the guest, in /job/files: build from nothing but the sources, with wheels for a network, and
# run Python.
set -eu
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/job/files/wheels
# /tmp is a tmpfs of half the memory, and the tests of the executable copy it many times.
export TMPDIR=/var/tmp
cd src
make --no-print-directory test-tools build
exec .venv/bin/python "$@"
