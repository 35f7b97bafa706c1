#!/bin/sh
# In the guest, in /job/files: run Python on what was built outside.
set -eu
cp -a root/. /
export PYRUNC_UNDER_TEST="${PYRUNC_UNDER_TEST:-/usr/local/bin/pyrunc}" PYRUNC_TEST_PROBE=/job/files/probe PYTHONPATH=/job/files/python
cd src
exec python3 "$@"
