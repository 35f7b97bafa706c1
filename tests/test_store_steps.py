"""What the store of images asks of the system, as in test_steps.py: the user's identity, layers and their
mounts, bundles, pruning. golden/store_steps.txt has the tables.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc.errors import ConfigError, PyruncError, SysError
from pyrunc.image import download, identity, locate, store, unpack
from pyrunc.image.errors import ImageError
from spies import Answers
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

OWN = {"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
       "gidMappings": [{"containerID": 0, "hostID": 1001, "size": 1}]}  # fmt: skip

# -- the identity ----------------------------------------------------------------------------------

WHO: dict[str, Any] = {
    "os.geteuid": 1000, "os.getegid": 1001, "host.initial_userns": True, "default.own_ids": OWN,
    "subordinate": Answers([(100000, 65536), (200000, 65535)]), "namespaces.hold_user_namespace": 41, "os.open": 60,
}  # fmt: skip
IDENTITY: dict[str, Row] = {
    "enter": (lambda w: identity.enter(w.extra["own_only"], mounts=w.extra["mounts"]), [
        {"WITH": {"own_only": own, "mounts": mounts}} | case
        for own, mounts in itertools.product((True, False), (True, False))
        for case in ({}, {"os.geteuid": 0}, {"os.geteuid": 0, "host.initial_userns": False},
                     {"subordinate": Answers([None, (5, 6)])}, {"subordinate": Answers([(5, 6), None])})
    ]),
    "enter by default": (lambda w: identity.enter(True), [{}]),
}  # fmt: skip
SPACE: dict[str, Row] = {
    "enter_namespace": (lambda w: identity._enter_namespace(OWN), [  # type: ignore[arg-type]
        {}, {"namespaces.hold_user_namespace": failed(errno.EPERM)}, {"idmap.write_maps": PyruncError("refused")},
        {"namespaces.setns": failed(errno.EINVAL)}, {"os.open": failed(errno.ENOENT)},
    ]),
}  # fmt: skip


@pytest.mark.parametrize("named", [True, False])
def test_subordinate_ids(named: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    def user(uid: int) -> Any:
        if not named:
            raise KeyError(uid)
        return SimpleNamespace(pw_name="me")

    monkeypatch.setattr(identity, "pwd", SimpleNamespace(getpwuid=user))
    monkeypatch.setattr(identity, "os", SimpleNamespace(geteuid=lambda: 1000))
    lines = []
    for text in (b"", b"me:5:6\n", b"1000:7:8", b"you:1:2\nme:3:4\n1000:5:6\n", b"me:5:0\nme:9:1\n", b"me:0:5\n",
        b"me:1:1\n",
                 b"me:5\n", b"me:5:6:7\n", b"me:x:6\n", b"me:5:x\n", b"me:-5:6\n", b" me:5:6 \n", b"\xff:1:2\nme:3:4\n",
                 b"me:1:4294967294\n", b"me:1:4294967295\n", b"me:2:4294967294\n", b"me:4294967295:1\n"):  # fmt: skip
        (tmp_path / "subuid").write_bytes(text)
        lines.append(f"{text!r}: {identity.subordinate(str(tmp_path / 'subuid'))}")
    lines.append(str(identity.subordinate(str(tmp_path / "none"))))
    transcript.compare("store_steps", f"subordinate ids, {named}", lines)


# -- places ----------------------------------------------------------------------------------------

PLACES: dict[str, Any] = {
    "fs.abspath": "/abs", "posix.geteuid": 1000, "fs.getenv": "", "posix.stat": SimpleNamespace(
        st_uid=1000, st_mode=0o040700, st_ino=5, st_mtime_ns=6, st_size=7),
    "check": None, "validator": [5], "host.initial_userns": True, "posix.getrandom": b"\x01" * 8, "posix.open": 60,
    "fs.exists": True, "remove_bundle": None, "interpreter.complete": None, "identity.enter": None,
}  # fmt: skip
LINK = b'{"reference": "ref", "validator": [5], "digest": "sha256:ab"}'
IMAGE = b'{"chains": ["sha256:0123456789abcdef0123456789", "sha256:b"], "digest": "sha256:ab"}'


def bundle_of(w: World) -> Any:
    """make_bundle(), and the configuration after it."""
    image: Any = {"chains": ["a"], "config": {"process": {"args": w.extra.get("own", ["sh"])}}}
    made = locate.make_bundle("/store", image, ("/root", w.extra.get("id", "c1")), w.extra.get("args", []),
                              terminal=w.extra.get("terminal", True))  # fmt: skip
    return made, image


MADE: list[dict[str, Any]] = [
    {"args": ["a", "b"]}, {"own": []}, {"own": [], "args": ["x"]}, {"terminal": False}, {"id": "i" * 200},
]  # fmt: skip
PATHS: dict[str, Row] = {
    "store_path": (lambda w: locate.store_path(w.extra["option"]), [
        {"WITH": {"option": option}, "posix.geteuid": uid, "fs.getenv": Answers(found)}
        for option, uid, found in (("/o", 0, [""]), ("", 0, [""]), ("", 5, ["", ""]), ("", 5, ["/data", ""]),
                                   ("", 5, ["", "/home/me"]), ("", 5, ["/data", "/home/me"]))
    ]),
    "check": (lambda w: locate.check("/s", w.extra["stat"]), [
        {"WITH": {"stat": SimpleNamespace(st_uid=uid, st_mode=mode)}}
        for uid, mode in ((1000, 0o040700), (1000, 0o040755), (1000, 0o040720), (1000, 0o040702), (0, 0o040700),
                          (1000, 0o047777))
    ]),
    "validator": (lambda w: locate.validator(w.extra["text"]), [
        {"WITH": {"text": text}, "posix.stat": found}
        for text in ("docker://x", "oci:/a", "oci-archive:/a:tag", "docker-archive:/a#linux/arm64", "/a:b:c", "")
        for found in (PLACES["posix.stat"], failed(errno.ENOENT),
                      Answers([failed(errno.ENOENT), PLACES["posix.stat"]]),
                      Answers([failed(errno.ENOTDIR)] * 2 + [PLACES["posix.stat"]]))
    ]),
    "find": (lambda w: locate.find("/s", "ref"), [
        {"fs.read_file": Answers(found)} | case
        for found, case in (
            ([LINK, IMAGE], {}), ([LINK, IMAGE], {"validator": [6]}), ([LINK.replace(b"ref\"", b"x\""), IMAGE], {}),
            ([b"x"], {}), ([b"[]"], {}), ([b"{}"], {}), ([LINK, b"{}"], {}), ([failed(errno.ENOENT)], {}),
            ([failed(errno.EACCES)], {}), ([LINK, IMAGE], {"check": PyruncError("not ours")}),
            ([LINK, IMAGE], {"posix.stat": Answers([PLACES["posix.stat"], failed(errno.ENOENT)])}),
            ([LINK, IMAGE], {"posix.stat": failed(errno.EACCES)}), ([LINK, failed(errno.EIO)], {}),
        )
    ]),
    "overlay_options": (lambda w: locate.overlay_options([f"sha256:{n:030}" for n in range(w.extra["count"])],
                                                         w.extra.get("upper", ""), "/work", prefix="l/"), [
        {"WITH": {"count": count, "upper": upper}, "posix.geteuid": uid, "host.initial_userns": initial}
        for count, upper, uid, initial in ((1, "", 0, True), (2, "/u", 0, True), (2, "/u", 5, True), (2, "", 0, False))
    ] + [{"WITH": {"count": count, "upper": "u" * more}, "posix.geteuid": 0}
         for count in (170, 177) for more in range(145, 165)]),
    "chains_of": (lambda w: locate.chains_of("/b"), [
        {"fs.read_file": found} for found in (IMAGE, b"x", b"[]", b"{}", b'{"chains": 5}', failed(errno.ENOENT))
    ]),
    "is_used": (lambda w: locate.is_used("/b"), [
        {"fs.read_file": found, "fs.exists": exists}
        for found in (b'{"root": "/r", "id": "c"}', b"x", b"[]", b"{}", failed(errno.ENOENT), failed(errno.EIO))
        for exists in (True, False)
    ]),
    "make_bundle": (bundle_of, [
        {}, *({"WITH": given} for given in MADE),
        *({"posix.mkdir": Answers(found)} for found in (
            [failed(errno.EEXIST)], [None, failed(errno.ENOSPC)], [None, None, KeyboardInterrupt()])),
        {"fs.write_new": failed(errno.ENOSPC)},
    ]),
}  # fmt: skip
REMOVED: dict[str, Row] = {
    "remove_bundle": (lambda w: locate.remove_bundle("/s/containers/c1"), [
        {"fs.remove_tree": Answers(found), "posix.geteuid": uid}
        for uid in (0, 5)
        for found in ([None], [PermissionError(errno.EACCES, "x"), None], [PermissionError(errno.EACCES, "x")],
                      [FileNotFoundError()], [failed(errno.EIO)])
    ] + [{"posix.open": failed(number)} for number in (errno.ENOENT, errno.EACCES)]),
}  # fmt: skip


def test_names_of_files() -> None:
    texts = ["", "sha256:ab:c", "docker://x/y:z", "a-b_c.d~e%f#g", "é\udcff/", "n" * 240, "n" * 241, "/" * 80, "/" * 81,
             "abc" * 90, "oci:/a", "oci-archive:a:b", "docker-archive:", "oci", "oci-x:/a", "/a/b"]  # fmt: skip
    lines = [f"{locate.encode_digest(text)!r} {locate.short(text)!r} {locate.encode_reference(text)}" for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locate.fs, "abspath", lambda path: f"<{path}>")  # type: ignore[attr-defined]
        lines += [locate.absolute(text, platform) for text in texts for platform in ("", "linux/arm64")]
    transcript.compare("store_steps", "names of files", lines, cut=True)


# -- bundles in preparation ------------------------------------------------------------------------

UNPACK: dict[str, Any] = {
    "os.path.split": ("/top", "name"), "os.path.abspath": "/top/name", "identity.enter": SimpleNamespace(
        owners=True, devices=False), "os.open": Answers([60, 61, 62, 63]), "os.listdir": [],
            "secrets.token_hex": "ab" * 8,
    "convert.convert": {"c": 1}, "validate.check": None, "sweep": 0, "check": None, "seed_volumes": None, "_fill": ("C",
        SimpleNamespace(lines=lambda: ["w"])), "unpack_layers": None, "write_all": None, "os.stat": SimpleNamespace(
        st_uid=5, st_gid=6, st_mode=0o042755), "tree.fd": Answers([50, 51, 52, 53]), "_open": None,
            "_check_target": None,
}  # fmt: skip
CLASSES = ("Applier", "Totals", "Warnings", "Tree", "Within", "LayerStream")


def image_of(w: World, count: int) -> Any:
    """An image with so many layers."""
    layers = [SimpleNamespace(blob=w.spy(f"blob{n}", short=f"b{n}", size=10 + n), chain_id=f"sha256:chain{n}")
              for n in range(count)]  # fmt: skip
    return SimpleNamespace(layers=layers, chain_id="sha256:top",
                           manifest=SimpleNamespace(short="m", digest="sha256:manifest"))  # fmt: skip


def labelled(w: World, spy: str, name: str) -> Any:
    """A spy with an attribute ``name``."""
    one = w.spy(spy)
    vars(one)["name"] = name
    return one


def options() -> Any:
    """The options of an unpack."""
    return SimpleNamespace(limits=SimpleNamespace(depth=9), volumes="tmpfs", rootless=True)


def partial(w: World, own: str) -> Any:
    """A directory in preparation."""
    return w.made(unpack.Partial, own, parent="/top", name="name", temporary="tmp", fd=60, parent_fd=61,
                  made=w.extra.get("made", True))  # fmt: skip


def after(one: Any, result: Any) -> Any:
    """A result, and the descriptors."""
    return result, one.fd, one.parent_fd, one.made


VOLUMES: Any = {"mounts": [{"source": "tmpfs", "destination": "/t"}, {"source": "volumes/7", "destination": "/a//b/"},
                           {"source": "volumes/8", "destination": "/c"}]}  # fmt: skip


def seeded(w: World) -> Any:
    """seed_volumes() of two volumes."""
    above = w.spy("above")
    w.answers.setdefault("tree.lookup", SimpleNamespace(parent=None if w.extra.get("root") else above, name="b"))
    return unpack.seed_volumes(w.spy("tree"), 60, w.extra.get("config", VOLUMES))


def applied(w: World) -> Any:
    """unpack_layers() of an image."""
    w.answers["_open"] = Answers([w.spy(f"stream{n}") for n in range(4)])
    if "opens" in w.extra:
        w.answers["_open"] = Answers([*w.answers["_open"][: w.extra["opens"]], ImageError("open")])
    image = image_of(w, w.extra["count"])
    return unpack.unpack_layers(w.spy("source"), image, w.spy("tree"), w.spy("applier", limits="L"), w.spy("progress"))


WRITING: dict[str, Row] = {
    "unpack_layers": (applied, [
        *({"WITH": {"count": count}} for count in range(4)), {"WITH": {"count": 3}, "applier.apply": ImageError("bad")},
        *({"WITH": {"count": 3, "opens": opens}} for opens in range(3)),
    ]),
}  # fmt: skip
FILLED: dict[str, Row] = {
    "fill": (lambda w: unpack._fill(w.spy("partial", fd=60), w.spy("source"), image_of(w, w.extra["count"]),
                                    SimpleNamespace(owners=True, devices=False), options(),  # type: ignore[arg-type]
                                    w.spy("progress")), [
        {"WITH": {"count": 0}}, {"WITH": {"count": 1}}, {"WITH": {"count": 1}, "unpack_layers": ImageError("bad")},
        {"WITH": {"count": 1}, "write_all": failed(errno.ENOSPC)}, {"WITH": {"count": 1},
            "check": ImageError("config")},
    ]),
}  # fmt: skip
WHOLE: dict[str, Row] = {
    "unpack": (lambda w: unpack.unpack(labelled(w, "source", "SOURCE"), image_of(w, 1), "/top/bundle", options(),
                                       w.spy("progress")), [
        {}, {"_fill": ImageError("bad")}, {"_fill": KeyboardInterrupt()},
    ]),
}  # fmt: skip
PREPARED: dict[str, Row] = {
    "check": (lambda w: unpack.check(w.extra["config"]), [
        {"WITH": {"config": {"process": {"args": args}}}, "validate.check": found}
        for args in ([], ["a"]) for found in (None, ConfigError([]))
    ]),
    "seed_volumes": (seeded, [{}, {"WITH": {"root": True}}, {"WITH": {"config": {"mounts": VOLUMES["mounts"][:1]}}},
                              {"os.rename": failed(errno.EXDEV)}]),
    "init": (lambda w: spies.state_of(unpack.Partial("/top", "name")), [{}]),
    "make": (lambda w: after(one := partial(w, "make"), one.make()), [
        {"WITH": {"made": False}}, {"WITH": {"made": False}, "os.open": failed(errno.ENOENT)},
        {"WITH": {"made": False}, "os.mkdir": failed(errno.EACCES)}, {"fcntl.flock": failed(errno.EAGAIN)},
        {"_check_target": ImageError("not empty")},
    ]),
    "check_target": (lambda w: partial(w, "_check_target")._check_target(), [
        {}, {"os.listdir": ["x"]}, {"os.open": FileNotFoundError()}, {"os.open": failed(errno.ENOTDIR)},
    ]),
    "commit": (lambda w: after(one := partial(w, "commit"), one.commit()), [{}, {"os.rename": failed(errno.ENOTEMPTY)},
                                                                           {"os.fsync": failed(errno.EIO)}]),
    "discard": (lambda w: after(one := partial(w, "discard"), one.discard()), [
        {}, {"WITH": {"made": False}}, {"fs.remove_tree": failed(errno.EIO)},
    ]),
    "close": (lambda w: after(one := partial(w, "close"), one.close()), [
        {"SELF": {"fd": fd, "parent_fd": parent}} for fd in (60, 0, -1) for parent in (61, 0, -1)
    ]),
}  # fmt: skip
SWEPT: dict[str, Row] = {
    "sweep": (lambda w: unpack.sweep(60), [
        {"os.listdir": ["a", ".pyrunc-unpack-1", "x.pyrunc-unpack-", ".pyrunc-unpack-2"]} | case
        for case in ({}, {"os.open": failed(errno.ENOTDIR)}, {"fcntl.flock": Answers([failed(errno.EAGAIN), None])},
                     {"fs.remove_tree": Answers([failed(errno.EIO), None])})
    ]),
}  # fmt: skip

# -- the store -------------------------------------------------------------------------------------

STORE: dict[str, Any] = {
    "os.open": Answers(list(range(60, 80))), "os.fstat": "STAT", "fs.exists": Answers([True, False]),
        "os.listdir": ["a", "b"],
    "locate.encode_digest": Answers([f"d{n}" for n in range(20)]), "locate.overlay_options": ["lowerdir=x"],
    "locate.short": "short", "locate.is_used": False, "locate.chains_of": ["sha256:used"], "time.time": 1000.0,
    "os.stat": SimpleNamespace(st_mtime=0.0), "unpack.sweep": 2, "unpack.PARTIAL": ".part-", "state.now": "now",
    "identity.enter": SimpleNamespace(owners=True, devices=False), "_has": Answers([True, False]), "_remove": 1,
    "convert.convert": {"c": 1}, "locate.validator": [5], "locate.encode_reference": "ref.json", "LayerStream": None,
    "_configuration": "CONFIG",
}  # fmt: skip


def opened(w: World, own: str) -> Any:
    """A store; its lock is noted."""
    one = w.made(store.Store, own, path="/store", fd=60)
    if "locked" not in own and own != "*":

        @contextlib.contextmanager
        def locked(**more: Any) -> Iterator[None]:
            w.notes.append(f"locked {more}")
            yield
            w.notes.append("unlocked")

        one.locked = locked
    return one


def locked(w: World) -> Any:
    """A store that is locked, and an error inside."""
    with opened(w, "locked").locked(exclusive=w.extra["exclusive"]):
        w.notes.append("inside")
        if w.extra.get("fails"):
            raise ImageError("inside")


def mounted(w: World) -> Any:
    """A layer that is mounted."""
    layers: Any = image_of(w, w.extra["count"]).layers
    with opened(w, "_mounted")._mounted(w.spy("partial", fd=61, temporary="tmp"), layers) as root:
        w.notes.append(f"inside {root}")
        if w.extra.get("fails"):
            raise ImageError("inside")


def unpacked(w: World) -> Any:
    """_unpack() with the mount noted."""
    one = opened(w, "_unpack")
    w.answers["unpack.Partial"] = w.spy("partial", fd=61)

    @contextlib.contextmanager
    def around(*args: Any) -> Iterator[int]:
        w.notes.append(f"mounted {spies.told(args)}")
        yield 77
        w.notes.append("unmounted")

    one._mounted = around
    layers = image_of(w, 2).layers
    with pytest.MonkeyPatch.context() as patch:
        from pyrunc.image import blobs

        patch.setattr(blobs, "LayerStream", spies.noting("LayerStream", w.notes, {"LayerStream": w.spy("stream")}))
        totals = w.spy("totals", limits=SimpleNamespace(depth=9))
        ids = SimpleNamespace(owners=True, devices=False)
        return one._unpack(w.spy("source"), layers[:1], layers[1], (totals, w.spy("warnings"), ids))


LISTED: Any = [("n1", {"digest": "sha256:1", "reference": "one"}), ("n2", {"digest": "sha256:1", "reference": "two"}),
               ("n3", {"digest": "sha256:3"}), ("n4", {"reference": "lost"})]  # fmt: skip
IMAGES: Any = [("i1", {"digest": "sha256:1", "chains": ["a", "b"], "size": 5, "created": "t"}),
               ("i2", {"digest": "sha256:2", "chains": ["c"], "size": 6, "created": "u"})]  # fmt: skip


def documents(w: World) -> Any:
    """documents() of a directory."""
    return list(opened(w, "documents").documents("refs"))


def pruned(w: World) -> Any:
    """prune() of a store with images and bundles."""
    one = opened(w, "prune")
    found = {"refs": LISTED[:1], "images": [
        ("i1", {"chains": ["sha256:used"]}), ("i2", {"chains": ["sha256:free"]}), ("i3", {"chains": []}), ("i4",
            {})]}  # fmt: skip
    one.documents = lambda kind: iter(found[kind])
    lists = {"containers": ["t1", "t2"], "layers": ["e-used", "e-free", "zz", ".part-x"], "l": ["l1", "l2"]}
    vars(vars(store)["locate"])["encode_digest"] = lambda chain: "e-" + chain[7:]  # called for a set
    with pytest.MonkeyPatch.context() as patch:
        spy = vars(store)["os"]
        patch.setattr(store, "os", ListsOf(spy, lists))
        return one.prune(everything=w.extra["everything"])


class ListsOf:
    """A module whose listdir() gives the names of each directory."""

    def __init__(self, module: Any, lists: dict[str, list[str]]) -> None:
        self.module, self.lists = module, lists

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def listdir(self, path: str) -> list[str]:
        return self.lists[path.rpartition("/")[2]]


NAMED: dict[str, Row] = {
    "init": (lambda w: spies.state_of(store.Store("/store")), [
        {}, {"os.makedirs": failed(errno.EACCES)}, {"os.mkdir": FileExistsError()}, {"os.mkdir": failed(errno.ENOSPC)},
        {"os.open": failed(errno.ELOOP)}, {"locate.check": PyruncError("not ours")},
    ]),
    "locked": (locked, [{"WITH": {"exclusive": exclusive, "fails": fails}} for exclusive in (True, False)
                        for fails in (True, False)] + [{"WITH": {"exclusive": True},
                            "fcntl.flock": failed(errno.EIO)}]),
    "pull": (lambda w: opened(w, "pull").pull(labelled(w, "source", "SOURCE"), image_of(w, 2), "ref", options(),
                                              w.spy("progress")), [
        {}, {"_has": False}, {"_has": True}, {"_has": False, "_unpack": ImageError("bad")},
        {"unpack.check": ImageError("config")},
    ]),
    "has": (lambda w: opened(w, "_has")._has(image_of(w, 1).layers[0]), [{"fs.exists": found} for found in (True,
        False)]),
    "private_mounts": (lambda w: opened(w, "_private_mounts")._private_mounts(), [
        {}, {"namespaces.unshare": failed(errno.EPERM)}, {"mounts.mount": failed(errno.EINVAL)},
    ]),
    "unpack": (unpacked, [
        {}, {"fs.exists": False}, {"fs.exists": Answers([False, True])}, {"applier.apply": ImageError("bad")},
        {"Applier": ImageError("bad")}, {"_commit": SysError("x", "rename", 5)}, {"os.mkdir": failed(errno.ENOSPC)},
    ]),
    "commit": (lambda w: opened(w, "_commit")._commit(labelled(w, "partial", "n")), [
        {}, *({"partial.commit": SysError("B", "rename", errno.ENOTEMPTY), "fs.exists": found} for found in (True,
            False)),
    ]),
    "mounted": (mounted, [
        {"WITH": {"count": count, "fails": fails}, "locate.overlay_options": data}
        for count in (0, 2) for fails in (True, False) for data in (["lowerdir=x"], ["lowerdir=x", "userxattr"])
    ] + [{"WITH": {"count": 1}, "os.open": failed(errno.EIO)}, {"WITH": {"count": 1},
        "_mount_overlay": PyruncError("no")}]),
    "mount_overlay": (lambda w: opened(w, "_mount_overlay")._mount_overlay("place", "a=b"), [
        {}, {"mounts.mount": failed(errno.EINVAL)},
    ]),
    "link": (lambda w: opened(w, "_link")._link(image_of(w, 1).layers[0]), [
        {}, {"os.symlink": FileExistsError()}, {"os.symlink": failed(errno.EROFS)},
    ]),
    "configuration": (lambda w: opened(w, "_configuration")._configuration(
        image_of(w, w.extra["count"]), options(), SimpleNamespace(), w.spy("warnings")), [
        *({"WITH": {"count": count}} for count in (0, 1, 2)), {"WITH": {"count": 2},
            "convert.convert": ImageError("bad")},
    ]),
    "register": (lambda w: opened(w, "_register")._register(image_of(w, 2), {"c": 1}, "ref"), [{}]),
    "documents": (documents, [
        {"os.listdir": ["b.json", "a.json", ".x.json", "c.txt"], "fs.read_file": Answers(found)}
        for found in ([b"{}"], [b"[]", b'{"a": 1}'], [b"x", b"{}"], [failed(errno.ENOENT), b"{}"])
    ]),
    "list": (lambda w: opened(w, "list").list(), [{"documents": Answers([LISTED, IMAGES])}, {"documents": []}]),
    "remove": (lambda w: opened(w, "_remove")._remove("layers", "0123456789abcdefghij"), [
        {}, {"os.rename": failed(errno.EACCES)}, {"fs.remove_tree": failed(errno.EIO)},
    ]),
    "close": (lambda w: opened(w, "close").close(), [{}]),
    "prune": (pruned, [
        {"WITH": {"everything": everything}, "locate.is_used": used, "os.stat": SimpleNamespace(st_mtime=at)}
        for everything in (True, False) for used in (True, False) for at in (0.0, 940.0, 940.5)
    ] + [{"WITH": {"everything": True}, "_remove": 0}]),
}  # fmt: skip

# -- a download ------------------------------------------------------------------------------------


def downloading(w: World, own: str) -> Any:
    """A download that nobody runs."""
    values = {"size": 0, "stopped": False, "done": False, "failure": None} | w.extra.get("self", {})
    return w.made(
        download.Download, own, wanted=SimpleNamespace(size=10, short="b"), fetch=w.spy("fetch"), file=w.spy("file"),
        changed=w.spy("changed"), thread=w.spy("thread"), **values,
    )  # fmt: skip


def left(one: Any, result: Any) -> Any:
    """A result, and where the download is."""
    return result, one.size, one.done, one.stopped, one.failure


def looped(w: World) -> Any:
    """_download() whose requests bring so many bytes each."""
    one = downloading(w, "_download")

    def once() -> None:
        found = w.extra["brings"].pop(0) if w.extra["brings"] else failed(errno.EIO)
        w.notes.append(f"once {found}")
        if isinstance(found, tuple):
            one.size += found[0]
            raise found[1]
        if isinstance(found, BaseException):
            raise found
        one.size += found

    one._once = once
    return left(one, one._download())


BROKEN = failed(errno.ECONNRESET)
LOAD: dict[str, Row] = {
    "run": (lambda w: left(one := downloading(w, "_run"), one._run()), [{}, {"_download": ImageError("bad")},
                                                                        {"_download": KeyboardInterrupt()}]),
    "once": (lambda w: left(one := downloading(w, "_once"), one._once()), [
        {"response.status": status, "fetch": None, "reads": reads, "WITH": {"self": {"size": size, "stopped": stopped}}}
        for status, reads, size, stopped in (
            (200, [b"abc", b"de", b""], 0, False), (206, [b"abc", b""], 4, False), (200, [b"abcd", b"efgh", b""], 4,
                False),
            (200, [b"abcd", b"efgh", b""], 5, False), (200, [b"abcd", b"efgh", b""], 3, False),
            (206, [b"x" * 10, b""], 0, False), (206, [b"x" * 11, b""], 0, False), (206, [b"abc"], 0, True),
            (206, [b"ab", failed(errno.ECONNRESET)], 0, False),
        )
    ]),
    "read_at": (lambda w: left(one := downloading(w, "read_at"), one.read_at(w.extra["offset"], 5)), [
        {"WITH": {"offset": offset, "self": {"size": size, "done": True, "failure": failure}}}
        for offset, size, failure in ((0, 10, None), (7, 10, None), (5, 10, None), (10, 10, None), (11, 10, None),
                                      (10, 10, ImageError("bad")), (3, 10, ImageError("bad")))
    ]),
    "close": (lambda w: left(one := downloading(w, "close"), one.close()), [
        {"thread.is_alive": alive} for alive in (True, False)
    ]),
    "spool": (lambda w: download.spool(), [
        {"os.environ": environ, "os.path.isdir": found} for environ in ({}, {"TMPDIR": "/t"}, {"TMPDIR": ""})
        for found in (True, False)
    ]),
}  # fmt: skip


def once_row(case: dict[str, Any]) -> dict[str, Any]:
    """A case of a request: the response is one object."""
    if "reads" not in case:
        return case
    response = spies.Spy(
        "response", [], {"response.read": Answers(case.pop("reads"))}, status=case.pop("response.status")
    )
    return case | {"fetch": response}


TABLES: Tables = [
    ("pyrunc.image.identity", IDENTITY, WHO, ("subordinate", "_enter_namespace")),
    ("pyrunc.image.locate", PATHS, PLACES, ("remove_bundle",)),
    ("pyrunc.image.unpack", WRITING, UNPACK, (*CLASSES, "_open")),
    ("pyrunc.image.store", NAMED, STORE, ("Applier", "Totals", "Warnings", "Tree", "Within")),
    ("pyrunc.image.download", {name: (call, [once_row(case) for case in cases]) for name, (call,
        cases) in LOAD.items()},
     {"os.pread": b"bytes"}, ()),
]  # fmt: skip
# The functions that the tables above replace.
OTHERS: Tables = [
    ("pyrunc.image.identity", SPACE, WHO, ()),
    ("pyrunc.image.locate", REMOVED, PLACES, ()),
    ("pyrunc.image.unpack", PREPARED, UNPACK, ("sweep",)),
    ("pyrunc.image.unpack", FILLED, UNPACK, (*CLASSES, "seed_volumes", "write_all", "unpack_layers", "check")),
    ("pyrunc.image.unpack", WHOLE, UNPACK, (*CLASSES, "Partial", "_fill")),
    ("pyrunc.image.unpack", SWEPT, UNPACK, ()),
]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("store_steps", f"{module.removeprefix('pyrunc.image.')}.{name}", calls_of(module, name, TABLES))


@pytest.mark.parametrize(("number", "name"), [(n, name) for n, row in enumerate(OTHERS) for name in row[1]])
def test_the_calls_of_the_others(number: int, name: str) -> None:
    module = OTHERS[number][0]
    lines = calls_of(module, name, [OTHERS[number]])
    transcript.compare("store_steps", f"{module.removeprefix('pyrunc.image.')}.{name}", lines)


TRIES: list[list[Any]] = [
    [10], [4, 6], [(4, BROKEN), 6], [BROKEN] * 4 + [10], [BROKEN] * 5, [(1, BROKEN)] * 9 + [1], [0], [4, 0],
    [ImageError("more")], [BROKEN, (1, BROKEN), *[BROKEN] * 5],
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(TRIES)))
def test_how_often_a_download_is_resumed(number: int) -> None:
    row: Row = (looped, [{"WITH": {"brings": list(TRIES[number])}}])
    tables: Tables = [("pyrunc.image.download", {"download": row}, {"time.sleep": None}, ())]
    transcript.compare("store_steps", f"tries {number}", calls_of("pyrunc.image.download", "download", tables))
