"""A case of the differential test as plain data that can be printed, sent to a worker and
reduced."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from integration.config import DELETE, default_config, edit


def words(text: str) -> list[str]:
    """Split at blanks, which keeps lists of names readable."""
    return text.split()


WORK = "/w"  # everything of a case is below it, at the same path for every runtime
BUNDLE, STATE, LOG, SOURCES, NAMESPACES = (f"{WORK}/{name}" for name in ("b", "s", "log", "src", "ns"))
ROOTFS = f"{BUNDLE}/rootfs"
ID = "c"
CGROUP = "/box/c"
CONSOLE = f"{WORK}/console"
PID_FILE = f"{WORK}/pid"
USER_MAP = "0 100000 65536\n"  # of the user namespace that can be joined
HOOKS = words(
    """
        prestart createRuntime createContainer startContainer poststart poststop
        """
)
REMOVE = "@remove"  # an edit's value: config.DELETE, as JSON


@dataclass(frozen=True)
class Feature:
    """One feature of a case beyond the default config.

    `edits` are pairs of a JSON pointer and a value for config.json. `rootfs` are operations on the
    root filesystem, `ask` lines for the program (inside.c), `caller` settings of the process that
    calls the runtime.
    """

    kind: str
    edits: Sequence[Sequence[Any]] = ()
    rootfs: Sequence[Sequence[str]] = ()
    ask: Sequence[str] = ()
    caller: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Features, and the commands to run, each a list that begins with the action (`runner.Run`)."""

    name: str
    features: Sequence[Feature]
    commands: Sequence[Sequence[Any]]

    @property
    def kinds(self) -> list[str]:
        """The features and commands, for counting."""
        found = [feature.kind for feature in self.features] + [f"command.{command[0]}" for command in self.commands]
        for feature in self.features:
            for pointer, value in feature.edits:
                found += _details(str(pointer), value)
        for name, *args in self.commands:
            found += [f"flag.{name}.{word.partition('=')[0]}" for word in _flat(args) if word.startswith("--")]
        return found

    def config(self) -> dict[str, Any]:
        """The config.json."""
        config = base_config()
        for feature in self.features:
            for pointer, value in feature.edits:
                edit(config, {pointer: DELETE if value == REMOVE else copy.deepcopy(value)})
        return config

    @cached_property
    def known(self) -> dict[str, Any]:
        """The config.json for conditions, which only read it."""
        return self.config()

    @property
    def caller(self) -> dict[str, Any]:
        """All settings of the calling process."""
        merged: dict[str, Any] = {}
        for feature in self.features:
            merged |= feature.caller
        return merged

    def asked(self) -> list[str]:
        """The questions for the program, without duplicates."""
        return list(dict.fromkeys(line for feature in self.features for line in feature.ask))

    def without(self, features: Iterable[int] = (), commands: Iterable[int] = ()) -> Case:
        """The case without the features and commands at these indexes."""
        gone, silent = set(features), set(commands)
        return Case(
            self.name,
            [one for index, one in enumerate(self.features) if index not in gone],
            [one for index, one in enumerate(self.commands) if index not in silent],
        )

    def dump(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def load(text: str) -> Case:
        """The inverse of `dump`."""
        raw = json.loads(text)
        return Case(raw["name"], [Feature(**one) for one in raw["features"]], raw["commands"])


def _details(pointer: str, value: Any) -> list[str]:
    """Details of an edit, for counting: hooks of a kind, options of mounts, types of devices."""
    if pointer.startswith("/hooks/"):
        return [f"hook.{pointer.rpartition('/')[2]}"]
    if pointer == "/mounts/-" and isinstance(value, dict):
        return [f"mount.option.{option.partition('=')[0]}" for option in value.get("options") or ()]
    if pointer == "/linux/devices":
        return [f"device.{entry['type']}" for entry in value]
    return []


def _flat(args: Iterable[Any]) -> Iterator[str]:
    """The words of a command and of its lists."""
    for word in args:
        if isinstance(word, str):
            yield word
        elif isinstance(word, list):
            yield from _flat(word)


def base_config() -> dict[str, Any]:
    """The config of every case before its features: a container as engines create it, without a
    seccomp profile."""
    config = default_config(CGROUP)
    config["process"]["args"] = ["/bin/inside"]
    return config
