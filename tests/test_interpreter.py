"""pyrunc/interpreter.py under a plain interpreter, and the launcher's guards."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pyrunc import __main__ as entry
from pyrunc import interpreter

ROOT = Path(__file__).resolve().parent.parent


def test_plain_interpreter() -> None:
    assert not interpreter.FROZEN and not interpreter.core_phase()
    interpreter.complete()
    assert interpreter.json_reader()(b'{"a": [1, 2.5, null, "\\u00e9"]} ') == {"a": [1, 2.5, None, "é"]}


def test_init_image_is_the_built_program() -> None:
    try:
        image = interpreter.init_image()
    except FileNotFoundError:
        pytest.skip("not built: make build")
    assert bytes(image[:4]) == b"\x7fELF"


def test_unexpected_exception_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert entry.last_resort(ValueError("first\nsecond"), []) == 1
    out, err = capfd.readouterr()
    assert out == "" and err == "pyrunc: error: internal error: ValueError: first\\u000asecond\n"


def test_unexpected_exception_with_debug_shows_where(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise RuntimeError("why")
    except RuntimeError as error:
        assert entry.last_resort(error, ["--debug", "state"]) == 1
    assert "test_interpreter.py" in capfd.readouterr().err


@pytest.mark.parametrize(("argv", "status"), [(["state", "c"], 1), (["--root", "/x", "exec", "c", "sh"], 255)])
def test_no_memory_is_one_line_with_the_status_of_the_verb(
    capfd: pytest.CaptureFixture[str], argv: list[str], status: int
) -> None:
    assert entry.last_resort(MemoryError(), argv) == status
    assert entry.last_resort(SystemError("x"), argv) == status
    first, second = capfd.readouterr().err.splitlines()
    assert first == "pyrunc: error: out of memory" and second.startswith("pyrunc: error: out of memory (or")


def test_exit_status_of_system_exit() -> None:
    assert entry.last_resort(SystemExit(3), []) == 3


# -- the built executable --------------------------------------------------------------------------


def call(launcher: Path | str, *argv: str, **options: object) -> subprocess.CompletedProcess[str]:
    options.setdefault("env", {})
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [str(launcher), *argv], capture_output=True, text=True, check=False, timeout=30, **options
    )


def test_empty_environment(launcher: Path) -> None:
    result = call(launcher, "--version")
    assert (result.returncode, result.stderr) == (0, "") and result.stdout.startswith("pyrunc version ")


def test_environment_and_directory_are_not_looked_at(launcher: Path, tmp_path: Path) -> None:
    """Hostile modules in the working directory and in PYTHONPATH do not run, neither hot nor
    cold."""
    for name in ("json", "os", "sitecustomize", "usercustomize", "traceback", "pyrunc", "posixpath"):
        (tmp_path / f"{name}.py").write_text("import posix\nposix.write(2, b'HIJACKED')\n", encoding="ascii")
    hostile = {
        "PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "os.py"),
        "PYTHONINSPECT": "1", "PYTHONVERBOSE": "1", "PYTHONPLATLIBDIR": str(tmp_path), "HOME": str(tmp_path),
    }  # fmt: skip
    for argv in (["--version"], ["features"], ["state", "no-such-container"]):
        result = call(launcher, "--root", str(tmp_path / "root"), *argv, cwd=tmp_path, env=hostile)
        assert "HIJACKED" not in result.stderr + result.stdout
        assert len(result.stderr.splitlines()) <= 1


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_stdio(launcher: Path, closed: tuple[int, ...], tmp_path: Path) -> None:
    """A closed 0-2 becomes /dev/null, so that no file of ours gets the number and takes what is
    printed."""
    redirections = " ".join(f"{fd}>&-" if fd else "0<&-" for fd in closed)
    probe = tmp_path / "out"
    command = f"{launcher} --root {tmp_path} state no-such-container {redirections}; echo $? > {probe}"
    subprocess.run(["/bin/sh", "-c", command], check=False, capture_output=True, timeout=30)
    assert probe.read_text(encoding="ascii").strip() == "1"


def test_dev_full_is_an_error(launcher: Path) -> None:
    """The peers exit with 0 after `state > /dev/full`, although nothing was written."""
    for verb in ("--version", "features"):
        with open("/dev/full", "w") as full:
            result = subprocess.run(
                [str(launcher), verb], stdout=full, stderr=subprocess.PIPE, env={}, text=True, check=False, timeout=30
            )
        assert result.returncode == 1
        assert "Traceback" not in result.stderr and len(result.stderr.splitlines()) == 1


def test_broken_pipe_is_an_error_not_a_signal(launcher: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([str(launcher), "features"], stdout=write, stderr=subprocess.PIPE, env={}, check=False)
    os.close(write)
    assert result.returncode == 1


def test_ignored_sigchld_and_odd_arguments(launcher: Path, tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    result = call(launcher, "--root", str(tmp_path), "state", os.fsdecode(b"\xff\xfe"), preexec_fn=ignore)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1


def copy_installation(launcher: Path, target: Path) -> Path:
    """The files of `make install`, in `target`."""
    site = Path(sysconfig.get_path("platlib", vars={"base": str(ROOT / ".venv"), "platbase": str(ROOT / ".venv")}))
    if not (site / "pyrunc").exists():
        pytest.skip("the package is not in .venv: make build")
    (target / "bin").mkdir(parents=True)
    (target / "lib" / "pyrunc").mkdir(parents=True)
    shutil.copy(launcher, target / "bin" / "pyrunc")
    shutil.copytree(site / "pyrunc", target / "lib" / "pyrunc" / "pyrunc")
    for backend in site.glob("_cffi_backend*.so"):
        shutil.copy(backend, target / "lib" / "pyrunc")
    return target / "bin" / "pyrunc"


def test_copied_installation_needs_nothing_else(launcher: Path, tmp_path: Path) -> None:
    copy = copy_installation(launcher, tmp_path / "usr")
    result = call(copy, "features")
    assert (result.returncode, result.stderr) == (0, "")
    assert "libseccomp" in result.stdout  # read through the shim's functions


@pytest.mark.skipif(os.geteuid() != 0, reason="the check is for root")
@pytest.mark.parametrize("verb", ["features", "state", "--version"])
@pytest.mark.parametrize("what", ["bin/pyrunc", "bin", "lib", "lib/pyrunc", ".", "..", "owner"])
def test_code_that_others_may_change_is_refused(launcher: Path, tmp_path: Path, what: str, verb: str) -> None:
    """Every command refuses to run, whether it loads files from there or not."""
    copy = copy_installation(launcher, tmp_path / "above" / "usr")
    target = Path(os.path.normpath(copy.parent.parent / ("lib/pyrunc" if what == "owner" else what)))
    if what == "owner":
        os.chown(target, 12345, 12345)
        hint = f"chown root {target}"
    else:
        os.chown(target, 0, 12345)
        target.chmod(target.stat().st_mode | 0o020)
        hint = f"chmod go-w {target}"
    result = call(copy, verb, *(["x"] if verb == "state" else []))
    assert result.returncode == 1 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert f"refusing to run as root: {target} can be changed by users other than its owner; {hint}\n" in result.stderr
    target.chmod(0o755)
    os.chown(target, 0, 0)
    assert "refusing" not in call(copy, verb).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="the check is for root")
def test_library_beside_the_package_is_not_loaded(launcher: Path, tmp_path: Path) -> None:
    """Only an executable without an embedded interpreter needs cffi, and rejects files that others
    could change."""
    copy = copy_installation(launcher, tmp_path / "usr")
    target = next((tmp_path / "usr").glob("lib/pyrunc/_cffi_backend*"))
    target.write_bytes(b"not a library")
    os.chown(target, 0, 12345)
    target.chmod(target.stat().st_mode | 0o020)
    result = call(copy, "features")  # it queries the kernel and libseccomp
    if b"_pyrunc_launcher" not in launcher.read_bytes():
        assert result.returncode == 1 and f"chmod go-w {target}" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    else:
        assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="the check is for root")
def test_group_of_root_may_write(launcher: Path, tmp_path: Path) -> None:
    """Its members are root; `umask 002` is common."""
    copy = copy_installation(launcher, tmp_path / "usr")
    for path in (copy, copy.parent, copy.parent.parent):
        path.chmod(0o775)
    assert call(copy, "features").returncode == 0


@pytest.mark.parametrize("size", [16 << 10, 32 << 10, 64 << 10, 255 << 10])
def test_small_stack_is_an_error_and_no_crash(launcher: Path, size: int) -> None:
    """With 12 KiB the dynamic loader itself has too little now and then, before any code of ours
    runs."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (size, resource.getrlimit(resource.RLIMIT_STACK)[1]))

    argv = [str(launcher), "--version"]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, preexec_fn=limit, env={})
    assert result.returncode == 1
    assert "RLIMIT_STACK" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("size", [256 << 10, 8 << 20, resource.RLIM_INFINITY])
@pytest.mark.parametrize(
    ("levels", "want"), [(127, "expected object, found an array"), (200_000, "at most 128 levels")]
)
def test_every_stack_has_room_for_the_deepest_config(
    launcher: Path, tmp_path: Path, size: int, levels: int, want: str
) -> None:
    """From 3.14 on, CPython compares addresses of its frames with the limits of the stack, which
    the launcher passes. The environment is on the stack as well."""
    (tmp_path / "config.json").write_text("[" * levels + "]" * levels)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (size, resource.getrlimit(resource.RLIMIT_STACK)[1]))

    argv = [str(launcher), "plan", "--bundle", str(tmp_path)]
    result = subprocess.run(
        argv, capture_output=True, text=True, timeout=20, check=False, preexec_fn=limit, env={"LARGE": "x" * 50_000}
    )
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1), result
    assert want in result.stderr


def mapped(launcher: Path, flags: int) -> int:
    """The size of an executable's segments with these flags (elf(5)), when it starts."""
    data = launcher.read_bytes()
    (first,), (count,) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<H", data, 56)
    rows = [struct.unpack_from("<IIQQQQQQ", data, first + 56 * number) for number in range(count)]
    return sum(row[6] for row in rows if row[0] == 1 and row[1] & flags == flags)


@pytest.mark.parametrize("limit", ["data", "as"])
@pytest.mark.parametrize("size", [1 << 19, 1 << 20, 4 << 20, 8 << 20])
def test_little_memory_is_an_error_and_no_crash(launcher: Path, size: int, limit: str) -> None:
    """With less than its own segments need, the kernel kills the executable before it starts."""
    size += mapped(launcher, flags={"data": 2, "as": 0}[limit])  # PF_W
    argv = ["prlimit", f"--{limit}={size}", str(launcher), "--version"]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    said = result.stderr if result.returncode in (1, 127) else result.stdout  # 127: ld.so
    wanted = ("pyrunc: error: out of memory", "pyrunc version", f"{launcher}: error while loading")
    assert said.startswith(wanted), result


@pytest.mark.parametrize(("verb", "status"), [("state", 1), ("exec", 255)])
def test_status_without_memory(launcher: Path, tmp_path: Path, verb: str, status: int) -> None:
    """Callers take another status of `exec` for the program's."""
    container = tmp_path / "c"
    container.mkdir(mode=0o700)
    (container / "state.json").write_text('{"x": "' + "a" * (6 << 20) + '"}')
    said = 0
    for size in range(16 << 20, 60 << 20, 1 << 20):
        argv = ["prlimit", f"--as={size}", str(launcher), "--root", str(tmp_path), verb, "c", "sh"]
        argv = argv if verb == "exec" else argv[:-1]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        if result.stderr.startswith("pyrunc: error: out of memory"):
            said += 1
            assert (result.returncode, len(result.stderr.splitlines())) == (status, 1)
    assert said


@pytest.mark.skipif(os.geteuid() != 0, reason="making a set-user-ID copy that matters needs root")
def test_set_user_id_is_refused(launcher: Path, tmp_path: Path) -> None:
    copy = copy_installation(launcher, tmp_path / "usr")
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o001 == 0:
            directory.chmod(directory.stat().st_mode | 0o011)
    os.chown(copy, 12345, 12345)
    copy.chmod(0o6755)
    result = call(copy, "--version")
    if os.statvfs(tmp_path).f_flag & os.ST_NOSUID:
        pytest.skip("the temporary directory is mounted nosuid")
    assert result.returncode == 1 and "set-user-ID" in result.stderr


def test_python_m(tmp_path: Path) -> None:
    result = call(sys.executable, "-m", "pyrunc", "--root", str(tmp_path), "state", "no-such-container", cwd=ROOT)
    assert result.returncode == 1 and result.stderr.startswith("pyrunc: error: ")
    assert len(result.stderr.splitlines()) == 1
