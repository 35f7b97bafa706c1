"""Add mounts to a container that has been created, and remove them again: all of them or none.

    mounts add:    build outside -> intent -> attach inside -> state
    mounts remove: find -> intent -> detach -> state

The intent is an entry of state.json marked as pending.  If pyrunc or init is killed, the next
`mounts` of the container detaches the pending mounts before anything else: half of an `add` is
undone, half of a `remove` is completed.
"""

from __future__ import annotations

import posix

from pyrunc import fs, handshake, host, mountinfo
from pyrunc.errors import Capped, ConfigError, Problem, PyruncError, StateError, SysError, show
from pyrunc.launch import joined
from pyrunc.launch.session import InitSession, SessionOptions
from pyrunc.plan import added_mounts as plans
from pyrunc.plan.context import Options
from pyrunc.plan.mount_options import clean
from pyrunc.spec import added_mounts as rules
from pyrunc.spec import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from pyrunc.launch.ending import Interrupts
    from pyrunc.launch.session import Handlers
    from pyrunc.log import Log
    from pyrunc.mountinfo import Tree
    from pyrunc.spec.types import Config, Mount
    from pyrunc.state import Container
    from pyrunc.state.document import AddedMount

_ATTEMPTS = 3  # the container may rename a directory above a mount while we look


class MovedError(Exception):
    """A mount is not where the plan detaches it."""


class MountSession(InitSession):
    """One init that enters the mount namespace of a locked container."""

    __slots__ = ("committed", "config", "ns_fds", "opts", "target")

    opts: SessionOptions

    def __init__(self, target: Container, config: Config, log: Log) -> None:
        super().__init__(log)
        self.opts = SessionOptions(target.id, log)
        self.target, self.config = target, config
        self.ns_fds: dict[str, int] = {}  # path -> descriptor
        self.committed = False  # the state says that it is done

    def handlers(self) -> Handlers:
        """The method that handles each action of ``transitions``."""
        found: Handlers = {**super().handlers(), "tree": self.on_tree, "mounted": self.on_mounted}
        del found["placed"]  # init does not enter the cgroup
        return found

    def execute(self) -> None:
        """Run `steps`.  Raises PyruncError after everything has been undone.

        Once the state is written, the work is done, and init only has to exit.
        """
        try:
            super().execute()
        except (MemoryError, OSError, PyruncError) as error:
            if not self.committed:
                raise
            self.log.debug(f"after the mounts of {self.target.id}: {error}")

    def commit(self) -> None:
        """Write the state, then let init exit.  Raises SysError."""
        self.target.save()
        self.committed = True
        self.send(handshake.GO)

    def steps(self, interrupts: Interrupts) -> None:
        """Compile, then let init do it."""
        self.spawn()
        self.prepare()
        self.converse(interrupts)
        self.reap_enter()
        self.close()

    def close(self) -> None:
        """Close the descriptors of the session."""
        self.channel.close()
        for fd in self.ns_fds.values():
            fs.ignore(posix.close, fd)
        self.ns_fds = {}

    def activated(self) -> int:
        """None: the sockets of socket activation are for a program."""
        return 0

    def prepare(self) -> None:
        """Compile the plan."""
        raise NotImplementedError

    def options(self, shown: set[str]) -> Options:
        """The options of the plan: it joins the user and the mount namespace, and those in
        ``shown``.

        Raises StateError.
        """
        found = joined.open_namespaces(self.target, self.ns_fds, "change the mounts")
        options = Options(self.target.id, self.target.data.get("bundle", ""))
        options.joined = [entry for entry in found if entry[0] in ("user", "mount") or entry[0] in shown]
        options.cgroup_path = self.target.data["cgroup"]
        if not options.joined or options.joined[-1][0] != "mount":
            raise StateError(f"container {self.target.id} has no mount namespace of its own")
        return options

    def open_slot(self, kind: str, value: str, origin: str) -> int:
        """Also pass on the namespaces, which are open, and create idmapped mounts."""
        if kind == "ns":
            return self.ns_fds.pop(value)
        return super().open_slot(kind, value, origin)

    def table(self) -> Tree:
        """The mounts of the container as init sees them; a process of the container may have
        another root.

        Raises SysError.
        """
        path = f"/proc/{self.enter_pid}/mountinfo"
        try:
            return mountinfo.Tree(mountinfo.read(self.enter_pid))
        except OSError as error:
            raise SysError(path, "read", error.errno or 0) from error

    def on_tree(self, record: handshake.Record) -> None:
        """TREE: the ids of a mount, or whether one was detached."""
        raise NotImplementedError

    def on_mounted(self, record: handshake.Record) -> None:
        """MOUNTED: init is about to change the mounts of the container."""
        raise NotImplementedError


class Add(MountSession):
    """Add ``entries``, which are valid."""

    __slots__ = ("added", "entries")

    transitions = handshake.MOUNTS

    def __init__(self, target: Container, config: Config, entries: list[Mount], log: Log) -> None:
        super().__init__(target, config, log)
        self.entries = entries
        self.added: list[AddedMount] = []

    def prepare(self) -> None:
        """Check what depends on the host, and compile."""
        facts = host.snapshot()
        self.log.warnings(rules.check(self.entries, self.config, facts), rules.SOURCE)
        options = self.options({plans.SHOWS.get(entry.get("type", ""), "") for entry in self.entries})
        self.plan = plans.compile_add(self.config, self.entries, facts, options)
        self.log.warnings(self.plan.warnings, rules.SOURCE)

    def open_slot(self, kind: str, value: str, origin: str) -> int:
        """Also create idmapped mounts."""
        if kind == "idmap":
            from pyrunc import idmap

            return idmap.open_mount({**self.config, "mounts": self.entries}, value, origin)
        return super().open_slot(kind, value, origin)

    def on_tree(self, record: handshake.Record) -> None:
        """TREE: a mount is built, but nowhere yet."""
        if len(self.added) == len(self.entries):
            raise PyruncError("init reports more mounts than there are")
        unique = int(record.call) if record.call.isdigit() else 0
        entry = self.entries[len(self.added)]
        self.added.append({"entry": entry, "id": record.value, "unique": unique, "at": "", "pending": True})

    def on_mounted(self, record: handshake.Record) -> None:
        """MOUNTED: write the intent, then let init attach them."""
        self.target.data["mounts"] = [*self.target.data.get("mounts", ()), *self.added]
        self.target.save()
        self.send(handshake.GO)

    def on_ready(self, record: handshake.Record) -> None:
        """READY: they are attached; record where."""
        table = self.table()
        try:
            for index, mount in enumerate(self.added):
                if mount["id"] not in table.points:
                    raise PyruncError(f"{rules.SOURCE}: /{index}/destination: the container has detached it again")
                mount["at"], mount["pending"] = table.points[mount["id"]], False
            self.commit()
        finally:
            if not self.committed:
                for mount in self.added:
                    mount["pending"] = True


class Remove(MountSession):
    """Detach ``chosen``, newest first."""

    __slots__ = ("chosen", "places", "results")

    transitions = handshake.MOUNTS

    def __init__(self, target: Container, config: Config, chosen: list[AddedMount], log: Log) -> None:
        super().__init__(target, config, log)
        self.chosen = chosen
        self.places: list[str] = []  # where the plan detaches them
        self.results: list[bool] = []

    def prepare(self) -> None:
        """Compile; the first process of the container shows where the mounts are now."""
        try:
            points = {mount.id: mount.point for mount in mountinfo.read(self.target.data["pid"])}
        except OSError:
            points = {}  # it has ended, which `options` reports
        self.places = [points.get(mount["id"]) or mount["at"] or "/" for mount in self.chosen]
        found = [(m["id"], m["unique"], place) for m, place in zip(self.chosen, self.places, strict=True)]
        self.plan = plans.compile_remove(self.config, found, host.HostFacts(), self.options(set()))

    def on_mounted(self, record: handshake.Record) -> None:
        """MOUNTED: check that the plan finds the mounts, write the intent, let init detach them."""
        table = self.table()
        for mount, place in zip(self.chosen, self.places, strict=True):
            if table.points.get(mount["id"], place) != place:
                raise MovedError
        for mount in self.chosen:
            mount["pending"] = True
        self.target.save()
        self.send(handshake.GO)

    def on_tree(self, record: handshake.Record) -> None:
        """TREE: whether a mount was there, and is detached."""
        self.results.append(bool(record.value))

    def on_ready(self, record: handshake.Record) -> None:
        """READY: check that they are gone, and forget them."""
        table = self.table()
        for mount, place, detached in zip(self.chosen, self.places, self.results, strict=True):
            # An id that is not unique may belong to a later mount.  init has looked at it.
            other = mount["unique"] and table.points.get(mount["id"]) == place and table.shows(mount["id"])
            if not detached and mount["id"] in table.points and not other:
                raise PyruncError(
                    f"{show(mount['entry']['destination'])} is still mounted in container {self.target.id}:"
                    " another mount covers it"
                )
        gone = [id(mount) for mount in self.chosen]
        self.target.data["mounts"] = [m for m in self.target.data.get("mounts", ()) if id(m) not in gone]
        self.commit()


class Mounts:
    """The mounts of a locked container; `pyrunc.api` replaces the sessions."""

    adding: ClassVar[type[Add]] = Add
    removing: ClassVar[type[Remove]] = Remove

    def __init__(self, container: Container, log: Log) -> None:
        self.container, self.log = container, log
        self.config, _ = load.load_config(container.dir + "/config.json")

    def add(self, entries: list[Mount]) -> None:
        """Add mounts. Raises ConfigError, StateError, SysError, after all of them have been
        undone."""
        self.usable()
        self.recover()
        if not entries:
            return
        try:
            self.adding(self.container, self.config, entries, self.log).execute()
        except BaseException:
            # init detaches what it has attached, unless it was killed.
            self.salvage()
            raise

    def remove(self, entries: list[Mount]) -> None:
        """Remove mounts that were added, by their destination.  Raises ConfigError, StateError,
        SysError."""
        self.usable()
        self.recover()
        chosen = choose(self.added_now(), [entry["destination"] for entry in entries], self.config)
        if chosen:
            self.detach(chosen)

    def added_now(self) -> list[AddedMount]:
        """The recorded mounts."""
        return self.container.data.get("mounts", [])

    def usable(self) -> None:
        """Raises StateError unless the container has processes."""
        status = self.container.status()
        if status in ("stopped", "creating"):
            raise StateError(f"cannot change the mounts of a {status} container")

    def recover(self) -> None:
        """Detach what a killed pyrunc has left pending.  Raises PyruncError."""
        pending = [mount for mount in self.added_now() if mount["pending"]]
        if pending:
            self.detach(pending[::-1])

    def salvage(self) -> None:
        """Detach what is pending; a failure leaves it to the next `mounts`, and is a warning."""
        try:
            self.recover()
        except (OSError, PyruncError) as error:
            self.log.warning(f"container {self.container.id}: {error}")

    def detach(self, chosen: list[AddedMount]) -> None:
        """Detach recorded mounts, newest first.  Raises PyruncError."""
        for _ in range(_ATTEMPTS):
            try:
                self.removing(self.container, self.config, chosen, self.log).execute()
            except MovedError:
                continue
            return
        raise PyruncError(f"container {self.container.id} moves the mounts: try again")


def choose(added: list[AddedMount], wanted: list[str], config: Config) -> list[AddedMount]:
    """The mounts to detach for these destinations, newest first.

    Of several at one destination, the newest is meant.  Raises ConfigError for a destination
    without an added mount, and for a mount that another one covers or is inside.
    """
    problems = Capped()
    chosen: list[int] = []
    at: dict[int, int] = {}  # index of the mount -> index in ``wanted``
    for number, destination in enumerate(wanted):
        index = _newest(added, clean(destination), chosen)
        if index < 0:
            found, hint = "nothing that can be removed", ""
            for position, mount in enumerate(config.get("mounts", ())):
                if clean(mount["destination"]) == clean(destination):
                    hint = f"/mounts/{position} of config.json made the one there"
            problems.append(Problem(f"/{number}/destination", "a mount that `mounts add` made", found, hint))
            continue
        chosen.append(index)
        at[index] = number
    for index in chosen:
        point = added[index]["at"]
        for later in range(index + 1, len(added)):
            other = added[later]["at"]
            if later not in at and (mountinfo.inside(other, point) or mountinfo.inside(point, other)):
                hint = f"remove {show(added[later]['entry']['destination'])} first"
                expected = "a mount that no later one covers or is inside"
                found = show(added[index]["entry"]["destination"])
                problems.append(Problem(f"/{at[index]}/destination", expected, found, hint))
                break
    if problems:
        raise ConfigError(problems, rules.SOURCE)
    return [added[index] for index in sorted(chosen, reverse=True)]


def _newest(added: list[AddedMount], destination: str, taken: list[int]) -> int:
    """The index of the newest mount with a destination that is not taken, or -1."""
    for index in range(len(added) - 1, -1, -1):
        if index not in taken and clean(added[index]["entry"]["destination"]) == destination:
            return index
    return -1
