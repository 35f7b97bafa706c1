#!/usr/bin/env bash
# coverage.sh PYTHON DIRECTORY [PYTEST ARGUMENTS]: lines and branches that the tests reach, in
# pyrunc/ and in native/.
#
# 1. pyrunc as plain Python (the launcher has its modules frozen in), under coverage.py; with what tests compile of the C code.
# 2. The products built with counters (native/coverage/counts.c), and faults in every system call for PYRUNC_FAULT_SECONDS (180).
set -eu
python=$(realpath -s "$1") out=$(realpath -m "$2") top=$(realpath "$(dirname "$0")/..")
shift 2
rm -rf "$out"
mkdir -p "$out/bin" "$out/gcov"
chmod 1777 "$out" # users' commands count as well
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

counts=$out/counts
mkdir -p "$counts" "$out/init" "$out/launcher" "$out/shim" "$out/reader" "$out/driver"
for product in init launcher shim reader driver; do
    : >"$counts/$product"
done
chmod -R a+rwX "$counts" # a rootless container counts as well
# native/tests/fs_driver.c runs init's code as well, and ends without exit(3).
cat >"$out/bin/gcc" <<END
#!/bin/sh
real=$(command -v gcc)
case "\$*" in
    *fs_driver.c*) ;;
    *) exec \$real "\$@" ;;
esac
for arg; do
    shift
    case \$arg in -fsanitize* | -fno-sanitize* | -O*) ;; *) set -- "\$@" "\$arg" ;; esac
done
\$real "\$@" -O0 -fprofile-arcs -ftest-coverage -fprofile-update=atomic -fprofile-info-section=gcov_info -fdata-sections \
    -dumpdir $out/driver/ -DCOVERAGE_FILE='"$counts/driver"' $top/native/coverage/counts.c \
    -Wl,-T,$top/native/coverage/counters.ld -lgcov || exit
for arg; do
    [ "\$last" != -o ] || cp "\$arg" $out/fs_driver
    last=\$arg
done
END
# What tests compile of init alone is the counted one.
cat >"$out/bin/musl-gcc" <<END
#!/bin/sh
for arg; do
    case \$arg in */pyrunc-init) exec cp $out/meson/_init "\$arg" ;; esac
done
exec $(command -v musl-gcc) "\$@"
END
chmod +x "$out/bin/musl-gcc"
PATH=$out/bin:$(dirname "$python"):$PATH
meson setup "$out/meson" . --prefix="$out/built" -Dcoverage="$counts" >"$out/build.log"
ninja -C "$out/meson" install >>"$out/build.log" || {
    tail -n 30 "$out/build.log"
    exit 1
}
extension=$(find "$out/built/lib" -name '_shim*.so')
site=$("$python" -Ic 'import sysconfig; print(sysconfig.get_path("platlib"))')
package=$(dirname "$(dirname "$extension")")
cp -r "$site"/_cffi_backend*.so "$site"/pyroute2 "$package"
# Without the tests that look at what init maps: the counters are mapped.
PYRUNC_UNDER_TEST=$out/built/bin/pyrunc \
    "$python" -m pytest -q integration/test_*.py integration/faults integration/security "$@" \
    --deselect integration/test_waiting.py::test_resident_memory --deselect integration/test_waiting.py::test_maps_name_no_file ||
    status=$?
(cd "$package" && "$python" -m pytest -q -p no:cacheprovider --rootdir="$top" "$top"/tests/test_{shim,seccomp,signals,spec_load}.py \
    "$top"/tests/test_cgroup_{devices,systemd}.py "$top"/tests/test_{init_program,init_protocol,plan_scheduling}.py \
    -k "not test_waiting_process") || status=$?
for product in init launcher shim reader; do
    find "$out/meson" -name '*.gcno' -exec cp {} "$out/$product" \;
done
PYRUNC_COVERAGE_DUMP=$out/init "$out/meson/_init"
PYRUNC_COVERAGE_DUMP=$out/launcher "$out/built/bin/pyrunc"
PYRUNC_COVERAGE_DUMP=$out/shim "$python" -c 'import sys; sys.path.insert(0, sys.argv[1]); import pyrunc._shim' "$package"
PYRUNC_COVERAGE_DUMP=$out/reader "$python" -c 'import sys; sys.path.insert(0, sys.argv[1]); import pyrunc._reader' "$package"
[ ! -e "$out/fs_driver" ] || PYRUNC_COVERAGE_DUMP=$out/driver "$out/fs_driver"
"$python" tests/gcov.py "$out/init" "$out/launcher" "$out/shim" "$out/reader" "$out/driver" "$out/gcov" | tee "$out/c.txt"
[ $status -le 1 ] # failures have been reported; 2 and more are errors of pytest
