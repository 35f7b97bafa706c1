#!/bin/sh
# In the guest, in /job/files: run Python beside the sources and what build.sh made of them.
set -eu
# /tmp is a tmpfs of half the memory, and the tests of the executable copy it many times.
export TMPDIR=/var/tmp
cd src
tar -xf ../built.tar
exec .venv/bin/python "$@"
