"""The C unit tests of init, compiled with the sanitizers, and the rules that its sources follow."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
INIT = ROOT / "native" / "init"
C_TESTS = ROOT / "native" / "tests"
GCC = shutil.which("gcc")
FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", f"-I{INIT}", f"-I{C_TESTS}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.skipif(GCC is None, reason="gcc is not installed")
@pytest.mark.parametrize(
    ("test", "sources"),
    [
        ("test_plan_load", ["plan_load", "run", "wait", "leave", "report", "trace", "passable"]),
        ("test_lookup", ["lookup", "report", "trace", "passable"]),
        ("test_hook", ["hook", "run", "wait", "leave", "report", "trace", "passable"]),
        ("test_passable", ["passable"]),
        ("test_fsapi", ["fsapi"]),
    ],
)
def test_c_unit(test: str, sources: list[str], tmp_path: pathlib.Path) -> None:
    """Compile and run a C test with its sources; check its TAP output as well as its exit
    status."""
    assert GCC
    exe, work = tmp_path / test, tmp_path / "work"
    work.mkdir()
    files: list[pathlib.Path | str] = [C_TESTS / f"{test}.c", *(INIT / f"{name}.c" for name in sources)]
    files += [C_TESTS / "calls.c", f"@{C_TESTS}/calls.flags"] if test != "test_plan_load" else []
    subprocess.run([GCC, *FLAGS, *SANITIZERS, "-o", exe, *files], check=True)
    args = [str(work)] if test != "test_plan_load" else []
    done = subprocess.run([exe, *args], capture_output=True, text=True, timeout=60)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("not ok", "#"))]
    assert not failed, "\n".join(failed)
    assert done.returncode == 0, done.stderr
    count = len(re.findall(r"^ok \d+ - ", done.stdout, re.M))
    assert count > 10
    assert done.stdout.endswith(f"1..{count}\n")


def test_every_op_has_its_handler() -> None:
    """A row of plan.def without a handler, or with another op's, would only be seen when a plan
    uses it."""
    rows = [line.split("|")[0].strip() for line in (ROOT / "native" / "plan.def").read_text().splitlines()]
    names = [name for name in rows if re.fullmatch(r"[A-Z_]+", name)]
    table = dict(re.findall(r"\[OP_(\w+)\] = op_(\w+),", (INIT / "handlers.c").read_text()))
    assert len(names) > 40
    assert table == {name: name.lower() for name in names}


def test_no_allocation_and_no_stdio() -> None:
    """init allocates nothing and formats nothing with stdio: it must not fail, grow or wait
    unexpectedly."""
    paths = list(INIT.glob("*.c"))
    assert len(paths) > 15
    for path in paths:
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        found = re.search(r"\b(malloc|calloc|realloc|strdup|asprintf|s?n?printf|fopen|system|getenv)\s*\(", code)
        assert not found, f"{path.name}: {found.group(0) if found else ''}"


OPENERS = {
    "open", "openat", "socket", "recvmsg", "sys_memfd_create", "sys_fsopen", "sys_fsmount", "sys_fspick",
    "sys_open_tree", "openat2_retry", "sys_openat2",
}  # fmt: skip
TREE_FLAGS = "unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;"
# Correct without close-on-exec, because of another line of the same file.
OTHERWISE = {
    'open("/dev/null", O_RDWR)': "fd < FIRST_FD",  # becomes stdin, stdout or stderr, which must stay open
    "openat2_retry(": "how = {.flags = (uint64_t)(flags | O_CLOEXEC)",
    "sys_openat2(dirfd, path, &how, sizeof(how))": "how = {.flags = (uint64_t)(flags | O_CLOEXEC)",
    "sys_openat2(from, name, &how, sizeof(how))": "how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC",
    "sys_open_tree(AT_FDCWD, step_str(in, st, S_OPEN_TREE_path), flags)": TREE_FLAGS,
    "sys_open_tree(AT_FDCWD, step_str(in, st, S_MOUNT_source), flags)": TREE_FLAGS,
}


def calls_of(code: str, names: set[str]) -> list[tuple[str, str]]:
    """Every call of these functions with its arguments, on one line."""
    found = []
    for match in re.finditer(r"(?<![\w.>])(\w+)\(", code):
        if match[1] not in names:
            continue
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(code[end], 0)
            end += 1
        if code[end : end + 2] != "\n{":  # not a definition
            found.append((match[1], re.sub(r"\s+", " ", code[match.start() : end])))
    return found


def test_descriptors_are_close_on_exec() -> None:
    """Every descriptor that init opens is close-on-exec from its first moment (CVE-2024-21626).

    By name, for what no test reaches; test_init_locks.py looks at the descriptors.
    """
    seen = dict.fromkeys(OPENERS, 0)
    unused = set(OTHERWISE)
    for path in INIT.glob("*.c"):
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        for name, call in calls_of(code, OPENERS):
            seen[name] += 1
            excuse = next((text for text in OTHERWISE if call.startswith(text)), "")
            unused.discard(excuse)
            assert "CLOEXEC" in call or (excuse and OTHERWISE[excuse] in code), f"{path.name}: {call}"
    assert unused == set()
    assert min(seen.values()) > 0, seen
    assert sum(seen.values()) > 40
