"""`make fuzz`: every target for a while; how often each was carried out, and what it found.

C targets: libFuzzer with the address and undefined-behaviour sanitizers. Python targets: atheris
(libFuzzer over instrumented bytecode) where there is one for this interpreter, else random inputs
without feedback from coverage. Everything made is below build/fuzz; an input that a target failed
on is kept there (`--replay FILE NAME`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
NATIVE = ROOT / "native"
SANITIZE = ("-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
WARNINGS = ("-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror")
# name -> what of native/ is linked with native/tests/fuzz_NAME.c, longest input
C_TARGETS = {
    "plan": (
        ("init/plan_load", "init/run", "init/wait", "init/leave", "init/report", "init/trace", "init/passable"),
        8192,
    ),
    "path": ((), 256),
    "text": (("init/lookup",), 512),
    "json": (("reader/reader", "reader/crowd", "reader/writer"), 4096),
}
JSON_SEEDS = (
    b"\0",
    b"\1",
    b'\0{"a": [1, -2.5e-3, true, false, null, "\\u00e9\\ud83d\\ude00\\n"], "b": {"c": {}}}',
    b'\1{"a": "\\udcff", "b": null}',
    b'\0{"a": null, "a": "\\u0000"}',
    b"\0[[[[]]], NaN, 1e999, 12345678901234567890]",
)
TEXT_SEEDS = (
    b"\0\0\7root:x:0:0:root:/root:/bin/sh\nu:x:5:5::/h:\n",
    b"\1\2p\0a:b:x",
    b"\2\20\1aaaaaaaa\0bbbbbbbb\1cccccccc",
    b"\3\11\0\0\0words words words words",
)
PYTHON_MOST = 400  # bytes of an input: choices of fuzz.draw
GRACE = 120  # seconds that a target may take besides, for compiling and reading the corpus


class Result:
    """What one target did."""

    def __init__(
        self, name: str, engine: str, text: str, status: int, seconds: float, crashes: list[pathlib.Path]
    ) -> None:
        self.name, self.engine, self.status, self.seconds = name, engine, status, seconds
        found = re.findall(r"stat::number_of_executed_units: +(\d+)", text)
        self.runs = int(found[-1]) if found else 0
        paths = re.findall(r"stat::paths_resolved: (\d+)", text)
        self.note = f"{int(paths[-1]):,} paths" if paths else ""
        self.crashes = len(crashes) or int(status != 0)
        self.text = text


def clang() -> str:
    """A clang with libFuzzer's runtime, "" when there is none."""
    for name in ("clang", *(f"clang-{version}" for version in range(21, 13, -1))):
        path = shutil.which(name)
        if path:
            done = subprocess.run([path, "-print-runtime-dir"], capture_output=True, text=True, check=False)
            if list(pathlib.Path(done.stdout.strip()).glob("*fuzzer*.a")):
                return path
    return ""


def seed(name: str, corpus: pathlib.Path) -> None:
    """Inputs to begin with: what earlier runs found stays beside them."""
    corpus.mkdir(parents=True, exist_ok=True)
    if name == "plan":
        import plan_support
        from pyrunc.errors import PyruncError
        from pyrunc.plan import create

        for case in plan_support.case_names():
            blob = b""
            with contextlib.suppress(PyruncError):  # cases of configurations that are refused
                blob = create.compile_create(*plan_support.load_case(case)).encode()
            if 0 < len(blob) < C_TARGETS["plan"][1]:
                (corpus / case).write_bytes(b"\1" + blob)
    for index, data in enumerate({"text": TEXT_SEEDS, "json": JSON_SEEDS}.get(name, ())):
        (corpus / str(index)).write_bytes(data)


def run_c(name: str, compiler: str, out: pathlib.Path, seconds: int, runs: int) -> Result:
    """Compile and run a C target in an empty directory, in memory when there is one."""
    linked, most = C_TARGETS[name]
    program, corpus, crashes = out / f"fuzz_{name}", out / "corpus" / name, out / "crashes" / name
    sources = [NATIVE / "tests" / f"fuzz_{name}.c", *(NATIVE / f"{source}.c" for source in linked)]
    command = [compiler, *WARNINGS, *SANITIZE, f"-I{NATIVE / 'init'}", "-o", str(program), *map(str, sources)]
    if name == "json":
        command += python_flags()
    subprocess.run(command, check=True)
    seed(name, corpus)
    shutil.rmtree(crashes, ignore_errors=True)
    crashes.mkdir(parents=True)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pyrunc-fuzz-", dir=memory) as work:
        return launch(
            name,
            "libFuzzer",
            [str(program), *options(seconds, runs, most, crashes), str(corpus)],
            work,
            seconds,
            crashes,
        )


def python_flags() -> list[str]:
    """What a program that embeds this interpreter is compiled and linked with."""
    values = sysconfig.get_config_vars()
    link = [f"-L{values['LIBDIR']}", f"-lpython{values['LDVERSION']}", *values["LIBS"].split()]
    return ["-isystem", sysconfig.get_path("include"), *link]


def options(seconds: int, runs: int, most: int, crashes: pathlib.Path) -> list[str]:
    """libFuzzer's."""
    limits = [
        f"-max_total_time={seconds}",
        f"-runs={runs or -1}",
        f"-max_len={most}",
        "-timeout=20",
        "-rss_limit_mb=1500",
    ]
    return [*limits, "-print_final_stats=1", f"-artifact_prefix={crashes}/"]


def launch(name: str, engine: str, command: list[str], cwd: str, seconds: int, crashes: pathlib.Path) -> Result:
    """Run a target to its end; its own limits end it, a time-out is a finding."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        try:
            status = subprocess.run(
                command, cwd=cwd, stdout=log, stderr=log, timeout=seconds + GRACE, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
        log.seek(max(0, log.seek(0, os.SEEK_END) - 100_000))
        text = log.read()
    return Result(name, engine, text, status, time.monotonic() - began, list(crashes.iterdir()))


def run_python(name: str, out: pathlib.Path, seconds: int, runs: int, engine: str) -> Result:
    """A Python target in a process of its own."""
    crashes, work = out / "crashes" / name, out / "work" / name
    for directory in (crashes, work):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    (out / "corpus" / name).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fuzz", "--child", engine, "--out", str(out)]
    command += ["--seconds", str(seconds), "--runs", str(runs), name]
    return launch(name, engine, command, str(ROOT), seconds, crashes)


def child(name: str, out: pathlib.Path, seconds: int, runs: int, engine: str) -> None:
    """In the process of a Python target."""
    crashes = out / "crashes" / name
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["pyrunc"]):
            from fuzz import targets
        with targets.prepared(name, out / "work" / name) as target:
            corpus = str(out / "corpus" / name)
            atheris.Setup([name, *options(seconds, runs, PYTHON_MOST, crashes), corpus], target)
            atheris.Fuzz()  # ends the process
    from fuzz import targets

    with targets.prepared(name, out / "work" / name) as target:
        number = time.time_ns()
        print("seed", number)
        chance, end, done = random.Random(number), time.monotonic() + seconds, 0
        while time.monotonic() < end and (not runs or done < runs):
            data = chance.randbytes(chance.choice((4, 16, 48, 120, PYTHON_MOST)))
            done += 1
            try:
                target(data)
            except BaseException:
                (crashes / f"crash-{done}").write_bytes(data)
                traceback.print_exc()
                print("stat::number_of_executed_units:", done)
                sys.exit(1)
        print("stat::number_of_executed_units:", done)


def replay(name: str, file: pathlib.Path, out: pathlib.Path) -> int:
    """One input again: of a Python target in this process, of a C target with its program."""
    if name in C_TARGETS:
        with tempfile.TemporaryDirectory(prefix="pyrunc-fuzz-") as work:
            return subprocess.run([out / f"fuzz_{name}", file.absolute()], cwd=work, check=False).returncode
    from fuzz import targets

    with (
        tempfile.TemporaryDirectory(prefix="pyrunc-fuzz-") as work,
        targets.prepared(name, pathlib.Path(work)) as target,
    ):
        target(file.read_bytes())
    return 0


def engine_for_python() -> str:
    """atheris, or what there is without."""
    done = subprocess.run([sys.executable, "-c", "import atheris"], capture_output=True, check=False)
    return "atheris" if done.returncode == 0 else "random"


def report(results: list[Result], out: pathlib.Path) -> None:
    """The table, and the words of what failed."""
    for result in results:
        if result.crashes:
            print(f"-- {result.name}: exit status {result.status}, inputs in {out / 'crashes' / result.name}")
            print("\n".join(result.text.splitlines()[-40:]))
    rows = [(r.name, r.engine, r.runs, r.seconds, r.crashes, r.note) for r in results]
    for kind, wanted in (("C", True), ("Python", False)):
        chosen = [r for r in results if (r.name in C_TARGETS) == wanted]
        if chosen:
            rows.append(
                (
                    f"all {kind}",
                    "",
                    sum(r.runs for r in chosen),
                    sum(r.seconds for r in chosen),
                    sum(r.crashes for r in chosen),
                    "",
                )
            )
    print(f"{'target':16}{'engine':12}{'executions':>14}{'seconds':>9}{'crashes':>9}")
    for name, engine, runs, seconds, crashes, note in rows:
        print(f"{name:16}{engine:12}{runs:>14,}{seconds:>9.0f}{crashes:>9}  {note}".rstrip())
    (out / "results.json").write_text(json.dumps(rows, indent=1))


def main() -> int:
    from fuzz import targets

    known = [*C_TARGETS, *targets.TARGETS]
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, default=0, help="executions of each target at most")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--engine", choices=("atheris", "random"), default="")
    parser.add_argument("--replay", type=pathlib.Path, help="an input that a target failed on")
    parser.add_argument("names", nargs="*", metavar="TARGET", help=", ".join(known))
    args = parser.parse_args()
    names = args.names or known
    if set(names) - set(known):
        parser.error(f"no such target: {', '.join(set(names) - set(known))}")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.replay:
        return replay(names[0], args.replay, args.out)
    compiler, engine, results = clang(), args.engine or engine_for_python(), []
    if not compiler:
        print("the C targets are left out: no clang with libFuzzer (.ci/require fuzz)")
    if engine == "random" and not args.engine:
        print("atheris is not there: the Python targets get random inputs, without feedback from coverage")
    for name in names:
        print(f"fuzz: {name}", flush=True)
        if name not in C_TARGETS:
            results.append(run_python(name, args.out, args.seconds, args.runs, engine))
        elif compiler:
            results.append(run_c(name, compiler, args.out, args.seconds, args.runs))
    report(results, args.out)
    return 1 if any(result.crashes for result in results) else 0


def child_main() -> None:
    """``--child ENGINE``: before targets are imported, so that atheris sees the imports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("name")
    args = parser.parse_args()
    child(args.name, args.out, args.seconds, args.runs, args.child)


if __name__ == "__main__":
    if "--child" in sys.argv:
        child_main()
    else:
        sys.exit(main())
