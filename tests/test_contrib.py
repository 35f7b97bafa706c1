"""contrib/: generated files are up to date and work, drop-in files are well-formed, and install and
uninstall."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pyrunc import cli

ROOT = Path(__file__).resolve().parent.parent
CONTRIB = ROOT / "contrib"
MAN = (CONTRIB / "man/pyrunc.8").read_text(encoding="utf-8")


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"not installed: {program}")
    return path


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, CONTRIB / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- completions -----------------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    """An environment whose pyrunc lists two containers, and a third one below --root /r."""
    script = '#!/bin/sh\n[ "$1" = --root ] && echo in"$2" || printf "one\\ntwo\\n"\n'
    (tmp_path / "pyrunc").write_text(script)
    (tmp_path / "pyrunc").chmod(0o755)
    (tmp_path / "some-file").touch()
    (tmp_path / "some-dir").mkdir()
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}


# The line up to the cursor, the words that must be offered, and those that must not.
OFFERS = [
    (["pyrunc", "st"], {"start", "state"}, {"create"}),
    (["pyrunc", "--log-format", ""], {"text", "json"}, {"start"}),
    (["pyrunc", "--log-format", "=", "j"], {"json"}, {"text"}),
    (["pyrunc", "--log-format", "json", "st"], {"start", "state"}, {"text"}),
    (["pyrunc", "--ro"], {"--root", "--rootless"}, {"--log"}),
    (["pyrunc", "state", ""], {"one", "two"}, {"start"}),
    (["pyrunc", "--root", "/r", "state", ""], {"in/r"}, {"one"}),
    (["pyrunc", "kill", "-a", ""], {"one", "two"}, {"SIGTERM"}),
    (["pyrunc", "kill", "one", "SIGT"], {"SIGTERM"}, {"SIGKILL", "one"}),
    (["pyrunc", "ps", "-f", ""], {"table", "json"}, {"one"}),
    (["pyrunc", "create", "--b"], {"--bundle"}, {"--pid-file"}),
    (["pyrunc", "create", "--bundle", "some"], {"some-dir"}, {"some-file"}),
    (["pyrunc", "create", "--pid-file", "some"], {"some-dir", "some-file"}, set()),
    (["pyrunc", "create", ""], set(), {"one", "start"}),
    (["pyrunc", "help", "li"], {"list"}, {"state"}),
    (["pyrunc", "mounts", ""], {"add", "remove"}, {"one"}),
    (["pyrunc", "mounts", "add", ""], {"one", "two"}, {"add", "some-file"}),
    (["pyrunc", "mounts", "add", "one", "some"], {"some-file"}, {"one"}),
]


@pytest.mark.parametrize(("words", "offered", "not_offered"), OFFERS, ids=lambda value: " ".join(value))
def test_bash_completion(
    words: list[str], offered: set[str], not_offered: set[str], fake: dict[str, str], tmp_path: Path
) -> None:
    script = f'source {CONTRIB}/completions/pyrunc.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pyrunc; '
    script += 'printf "%s\\n" "${COMPREPLY[@]}"'
    command = [need("bash"), "--norc", "-c", script, "bash", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=fake, cwd=tmp_path, timeout=20)
    found = set(done.stdout.split())
    assert done.stderr == "" and offered <= found and not (found & not_offered), (done, words)


def test_fish_completion(fake: dict[str, str], tmp_path: Path) -> None:
    script = f"source {CONTRIB}/completions/pyrunc.fish; for line in $argv; complete -C$line; echo ===; end"
    lines = ["pyrunc st", "pyrunc state ", "pyrunc ps --format "]
    command = [need("fish"), "--no-config", "-c", script, *lines]
    done = subprocess.run(command, capture_output=True, text=True, env=fake, cwd=tmp_path, timeout=20)
    found = [{line.split("\t")[0] for line in part.split("\n")} - {""} for part in done.stdout.split("===\n")]
    assert done.stderr == "" and found[:3] == [{"start", "state"}, {"one", "two"}, {"table", "json"}], done


def test_zsh_completion_is_well_formed() -> None:
    done = subprocess.run([need("zsh"), "-f", "-n", CONTRIB / "completions/_pyrunc"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# -- the manual page -------------------------------------------------------------------------------


def test_every_verb_and_option_is_in_the_manual() -> None:
    text = MAN.replace("\\-", "-")
    for verb in cli.VERBS:
        section = re.search(rf"^\.SS {verb}\n(.*?)(?=^\.S[SH] )", text, re.M | re.S)
        assert section, verb
        for flag in cli.load_verb(verb).FLAGS:
            assert f"\\fB--{flag[0]}\\fR" in section[1], (verb, flag[0])
    for flag in cli.GLOBAL_FLAGS:
        assert f"\\fB--{flag[0]}\\fR" in text.partition(".SH COMMANDS")[0], flag[0]


def test_the_manual_is_well_formed() -> None:
    done = subprocess.run(
        [need("groff"), "-man", "-Tutf8", "-ww", "-z", CONTRIB / "man/pyrunc.8"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- drop-in files ---------------------------------------------------------------------------------


def test_drop_ins_are_well_formed() -> None:
    first, second = (tomllib.loads((CONTRIB / f"containerd/containerd-{n}.toml").read_text()) for n in (1, 2))
    for config, plugin in ((first, "io.containerd.grpc.v1.cri"), (second, "io.containerd.cri.v1.runtime")):
        section = config["plugins"][plugin]["containerd"]
        assert section["default_runtime_name"] in section["runtimes"]
        assert section["runtimes"]["pyrunc"]["options"]["BinaryName"] == "/usr/local/bin/pyrunc"
    crio = tomllib.loads((CONTRIB / "crio/10-pyrunc.conf").read_text())["crio"]["runtime"]
    handler = crio["runtimes"][crio["default_runtime"]]
    assert handler["runtime_path"] == "/usr/local/bin/pyrunc"
    assert handler["container_min_memory"] == "512KiB"  # CRI-O's default for runc
    podman = tomllib.loads((CONTRIB / "podman/pyrunc.conf").read_text())["engine"]
    assert "pyrunc" in podman["runtime_supports_json"] and "/usr/local/bin/pyrunc" in podman["runtimes"]["pyrunc"]
    docker = json.loads((CONTRIB / "docker/daemon.json").read_text())
    assert docker["runtimes"][docker["default-runtime"]]["path"] == "/usr/local/bin/pyrunc"
    classes = (CONTRIB / "kubernetes/runtimeclass.yaml").read_text().split("---\n")
    assert "kind: RuntimeClass" in classes[0] and "\nhandler: pyrunc\n" in classes[0]
    assert "runtimeClassName: pyrunc" in classes[1]


# -- install ---------------------------------------------------------------------------------------


def make(*words: str) -> None:
    # -o: install what is built; a test does not build.
    done = subprocess.run(["make", "-s", "-o", "build", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_install_and_uninstall(tmp_path: Path) -> None:
    if not (ROOT / ".venv/bin/pyrunc").exists():
        pytest.skip("not built: make build")
    where = (f"DESTDIR={tmp_path}", "PREFIX=/usr")
    usr = tmp_path / "usr"
    others = [usr / "bin/other", usr / "lib/pyrunc/other", usr / "share/man/man8/other.8"]
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.touch()
    make("install", *where)
    version = subprocess.run([usr / "bin/pyrunc", "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("pyrunc version ")
    for name in ("bash-completion/completions/pyrunc", "zsh/site-functions/_pyrunc", "man/man8/pyrunc.8"):
        assert (usr / "share" / name).is_file(), name
    assert (usr / "share/fish/vendor_completions.d/pyrunc.fish").is_file()
    for part in ("cffi", "pyroute2", "urllib3", *(["backports_zstd"] if sys.version_info < (3, 14) else [])):
        assert list((usr / "share/doc/pyrunc/licenses" / part).iterdir()), f"{part} comes without its licence"
    assert (usr / "share/doc/pyrunc/LICENSE").is_file()
    assert not list(usr.rglob("*prctl*")), "GPL-3, and only `doctor` may use it"
    sources = list((usr / "lib/pyrunc/pyroute2").rglob("*.py"))
    late = [path for path in sources if not list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))]
    assert len(sources) > 100 and not late, "compiling them takes longer than all of a create"
    writable = [path for path in usr.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]
    assert not writable, "the launcher refuses what a group may write"
    make("install", *where)  # again, over the installed files
    make("uninstall", *where)
    assert sorted(path for path in usr.rglob("*") if not path.is_dir()) == sorted(others)
    make("uninstall", *where)
