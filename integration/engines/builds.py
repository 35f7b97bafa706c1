"""The cases of builds, which docker, buildah and BuildKit share, since their Dockerfiles are the
same."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

from integration import harness
from integration.engines.conftest import Seen
from integration.engines.host import TIMEOUT, Done, Host

SHOWN = re.compile(r"SHOWN (.*?)\s*$", re.MULTILINE)
SLEEP = "987654"  # seconds, which no other process sleeps


def build(engine: Any, name: str, text: str, *flags: str, files: dict[str, str] | None = None) -> Done:
    """Build a Dockerfile; ``BASE`` in it is the image of the tests. `files` are the context."""
    done: Done = engine.build(write(engine, name, text, files), *flags)
    return done


def write(engine: Any, name: str, text: str, files: dict[str, str] | None = None) -> Path:
    """Write a Dockerfile and its context."""
    folder: Path = engine.builds / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line.strip() for line in text.strip().splitlines()]
    whole = "\n".join(lines) + "\n"
    # Some builders repeat the command, which must not look like its output.
    (folder / "Dockerfile").write_text(whole.replace("BASE", engine.base).replace("SHOWN", 'SH""OWN'))
    for path, content in (files or {}).items():
        (folder / path).write_text(content)
    engine.own(folder)
    return folder


def shown(done: Done) -> list[str]:
    """What the steps have written after the word SHOWN."""
    return SHOWN.findall(done.said)


class Builder:
    """What the cases need of an engine."""

    host: Host
    base = "bb:1"  # the image of the tests

    @property
    def builds(self) -> Path:
        """The directory of the contexts."""
        return self.host.path / "builds"

    def own(self, path: Path) -> None:
        """Give a file or a directory with its files to the user who builds."""

    def build_words(self, folder: Path, *flags: str) -> list[str]:
        """The command line that builds a context, and writes the steps' output."""
        raise NotImplementedError

    def build(self, folder: Path, *flags: str) -> Done:
        """Build a context, whose steps are a container each."""
        return self.host.call(*self.build_words(folder, *flags), timeout=5 * TIMEOUT)

    def states(self) -> list[str]:
        """Containers in the runtimes' state directories."""
        return [*self.host.listdir("/run/runc"), *self.host.listdir("/run/pyrunc")]


class Builds:
    """RUN steps as a user writes them."""

    def test_steps(self, engine: Any, seen: Seen) -> None:
        text = """
            FROM BASE
            RUN echo content >/file && mkdir /dir
            RUN echo "SHOWN $(cat /file) $$"; test -d /dir
        """
        done = build(engine, "steps", text)
        seen(exit_code=done.rc, shown=shown(done))
        assert done.rc == 0 and shown(done) == ["content 1"], done

    def test_failing_step(self, engine: Any, seen: Seen) -> None:
        done = build(engine, "failing", "FROM BASE\nRUN exit 7")
        named = re.search(r"(?:exit (?:code|status):? |returned a non-zero code: )7\b", done.said)
        seen(fails=done.rc != 0, names_the_exit_code=bool(named))
        assert done.rc != 0 and named, done

    def test_missing_command(self, engine: Any, seen: Seen) -> None:
        done = build(engine, "missing", 'FROM BASE\nRUN ["/nonexistent"]')
        says = "/nonexistent" in done.said and "no such file or directory" in done.said.lower()
        seen(fails=done.rc != 0, says_why=says)
        assert done.rc != 0 and says, done

    def test_user_directory_and_environment(self, engine: Any, seen: Seen) -> None:
        text = """
            FROM BASE
            USER 1000:1234
            WORKDIR /tmp
            ENV A=b
            RUN echo "SHOWN $(id -u) $(id -g) $(pwd) $A"; touch /x || echo "SHOWN read-only"
        """
        done = build(engine, "user", text)
        seen(shown=shown(done))
        assert done.rc == 0 and shown(done) == ["1000 1234 /tmp b", "read-only"], done

    def test_privileges(self, engine: Any, seen: Seen) -> None:
        text = """
            FROM BASE
            RUN sed -n "s/^\\(Cap[PEB][a-z]*\\|NoNewPrivs\\|Seccomp\\):./SHOWN \\1 /p" /proc/self/status
        """
        done = build(engine, "privileges", text)
        seen(shown=shown(done))
        assert done.rc == 0 and len(shown(done)) == 5, done

    def test_mounts(self, engine: Any, seen: Seen) -> None:
        text = """
            FROM BASE
            RUN --mount=type=bind,source=given,target=/given cat /given | sed "s/^/SHOWN /"
            RUN --mount=type=bind,source=given,target=/given echo x >/given || echo "SHOWN refused"
            RUN --mount=type=tmpfs,target=/scratch echo "SHOWN $(stat -f -c %T /scratch)"
        """
        done = build(engine, "mounts", text, files={"given": "content\n"})
        seen(shown=shown(done))
        assert done.rc == 0 and shown(done)[0] == "content" and shown(done)[-1] == "tmpfs", done

    def test_cache(self, engine: Any, seen: Seen) -> None:
        text = """
            FROM BASE
            RUN --mount=type=cache,target=/cache echo one >>/cache/file
            RUN --mount=type=cache,target=/cache echo "SHOWN $(wc -l </cache/file)"; test ! -e /cache/other
            RUN test ! -e /cache/file
        """
        done = build(engine, "cache", text)
        seen(shown=shown(done))
        assert done.rc == 0 and shown(done) == ["1"], done

    def test_secret(self, engine: Any, seen: Seen) -> None:
        text = """
            FROM BASE
            RUN --mount=type=secret,id=s echo "SHOWN $(cat /run/secrets/s) $(stat -c %a /run/secrets/s)"
            RUN test ! -s /run/secrets/s
        """
        file = engine.builds / "hidden"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("hidden\n")
        engine.own(file)
        done = build(engine, "secret", text, "--secret", f"id=s,src={file}")
        seen(shown=shown(done))
        assert done.rc == 0 and shown(done) == ["hidden 400"], done

    def test_without_network(self, engine: Any, seen: Seen) -> None:
        text = """
            FROM BASE
            RUN --network=none echo "SHOWN $(ls /sys/class/net | tr '\\n' ' ')"
        """
        done = build(engine, "network", text)
        seen(shown=shown(done))
        assert done.rc == 0 and shown(done) == ["lo"], done

    def test_stages(self, engine: Any, seen: Seen) -> None:
        stages = "\n".join(f"FROM BASE AS s{n}\nRUN echo {n} >/n && sleep 0.3" for n in range(6))
        copies = "\n".join(f"COPY --from=s{n} /n /n{n}" for n in range(6))
        done = build(engine, "stages", f'{stages}\nFROM BASE\n{copies}\nRUN echo "SHOWN $(cat /n?| tr -d "\\n")"')
        seen(shown=shown(done))
        assert done.rc == 0 and shown(done) == ["012345"], done

    def test_interrupted(self, engine: Any, seen: Seen) -> None:
        """The step ends when the client is interrupted."""
        folder = write(engine, "interrupted", f"FROM BASE\nRUN exec sleep {SLEEP}")

        def running() -> bool:
            return any(args.endswith(f"sleep {SLEEP}") for args in engine.host.processes())

        client = engine.host.start(*engine.build_words(folder), log="interrupted.log")
        harness.wait_until(running, "the step to run", 40)
        engine.host.end(client, signal.SIGINT)
        harness.wait_until(lambda: not running(), "the step to end", 40)
        again = build(engine, "again", 'FROM BASE\nRUN echo "SHOWN again"')
        seen(afterwards=shown(again))
        assert again.rc == 0, again

    def test_no_container_left(self, engine: Any, seen: Seen) -> None:
        harness.wait_until(lambda: not engine.states(), "the containers to be deleted", 20)
        seen(containers=len(engine.states()))
