#!/usr/bin/env bash
# coverage.sh PYTHON DIRECTORY [PYTEST ARGUMENTS]: what the tests reach, in pyrunc/ (lines and branches) and, of the C code that tests
# compile themselves, in native/.  pyrunc runs as plain Python: the launcher has its modules frozen in.
set -eu
python=$(realpath -s "$1") out=$(realpath -m "$2") top=$(realpath "$(dirname "$0")/..")
shift 2
rm -rf "$out"
mkdir -p "$out/bin" "$out/gcov"
cat >"$out/rc" <<END
[run]
branch = true
source = $top/pyrunc
parallel = true
data_file = $out/data
patch = _exit
[report]
show_missing = true
skip_covered = true
exclude_also = if TYPE_CHECKING:
END
# What tests compile with: notes and counts of each program in a place of its own.
cat >"$out/bin/gcc" <<END
#!/bin/sh
exec $(command -v gcc) --coverage -fprofile-update=atomic -dumpdir $out/gcov/\$\$- "\$@"
END
# `python -m pyrunc` ends with posix._exit, before coverage.py can write down what it saw.
cat >"$out/main.py" <<END
import sys
from pyrunc.__main__ import run
sys.exit(run(sys.argv[1:]))
END
cat >"$out/bin/pyrunc" <<END
#!/bin/sh
PYTHONPATH=$top exec $python -m coverage run --rcfile=$out/rc $out/main.py "\$@"
END
chmod +x "$out/bin/gcc" "$out/bin/pyrunc"
cd "$top"
status=0
PATH=$out/bin:$PATH "$python" -m coverage run --rcfile="$out/rc" -m pytest -q tests "$@" || status=$?
PYRUNC_UNDER_TEST=$out/bin/pyrunc PATH=$out/bin:$PATH "$python" -m pytest -q integration/test_*.py "$@" || status=$?
"$python" -m coverage combine -q --rcfile="$out/rc"
"$python" -m coverage report --rcfile="$out/rc" | tee "$out/python.txt"
"$python" tests/gcov.py "$out/gcov" | tee "$out/c.txt"
[ $status -le 1 ] # what failed has been told; 2 and more are pytest's own troubles
