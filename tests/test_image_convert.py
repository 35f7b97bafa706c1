"""The configuration of an image -> config.json: image-spec conversion.md, row by row."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import transcript
from image_support import digest
from json_type import Json
from pyrunc.errors import UsageError
from pyrunc.image import accounts, convert, limits, unpack
from pyrunc.image.descriptor import Descriptor
from pyrunc.image.errors import ImageError
from pyrunc.image.identity import Identity
from pyrunc.image.layer import Warnings
from pyrunc.image.manifest import Image
from pyrunc.image.tree import Tree
from pyrunc.spec import default
from pyrunc.spec.types import Config

kept = transcript.follow(
    "pyrunc.image.convert",
    "pyrunc.image.accounts",
    "pyrunc.image.reference",
    "pyrunc.image.locate",
    "pyrunc.image.identity",
)

ROOT = Identity(owners=True, devices=True)
USERS = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44::/var/www:/bin/sh\n#comment\n7:x:1:1::/:\nbad:x:y:z::/:\n"
USERS += "half:x:9:z::/half:\n"
GROUP = "root:x:0:\nweb:x:44:\nvideo:x:50:web,other\naudio:x:51:other\nadm:x:4:web\nbad:x:x:web\n"
Convert = Callable[..., Json]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(USERS)
    (tmp_path / "etc/group").write_text(GROUP)
    made = Tree(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY), 256)
    yield made
    made.close()
    os.close(made.root_fd)


@pytest.fixture
def converted(tree: Tree) -> Convert:
    def call(source: dict[str, Any] | None, ids: Identity = ROOT, volumes: str = "tmpfs", **top: Any) -> Config:
        document = {"os": "linux", "architecture": "amd64", "config": source, **top}
        image = Image(Descriptor("m", digest(b""), 0), document, [])
        return convert.convert(image, tree, volumes=volumes, ids=ids, warnings=Warnings())

    return call


def test_an_empty_configuration(converted: Convert) -> None:
    config = converted(None)
    process = config["process"]
    assert (process["args"], process["cwd"], process["user"]) == ([], "/", {"uid": 0, "gid": 0})
    assert process["terminal"] is False and config["root"] == {"path": "rootfs", "readonly": False}
    assert converted(dict.fromkeys(("Env", "Cmd", "Entrypoint", "User", "Labels", "Volumes"))) == config
    unpack.check(config)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "args"),
    [(["e"], ["c", "d"], ["e", "c", "d"]), (["e"], None, ["e"]), (None, ["c"], ["c"]), ([], [], [])],
)
def test_args(converted: Convert, entrypoint: list[str] | None, cmd: list[str] | None, args: list[str]) -> None:
    assert converted({"Entrypoint": entrypoint, "Cmd": cmd})["process"]["args"] == args


def test_env(converted: Convert) -> None:
    env = converted({"Env": ["A=1", "HOME=/mine", "PATH=/p"]})["process"]["env"]
    assert env == ["A=1", "HOME=/mine", "PATH=/p", "TERM=xterm"]
    assert converted({"User": "web"})["process"]["env"] == [convert.PATH, "TERM=xterm", "HOME=/var/www"]


@pytest.mark.parametrize(
    ("text", "uid", "gid", "groups"),
    [
        ("", 0, 0, []),
        ("root", 0, 0, []),
        ("web", 33, 44, [4, 50]),
        ("33", 33, 44, []),
        ("1000", 1000, 0, []),
        ("1000:1000", 1000, 1000, []),
        ("web:video", 33, 50, []),
        ("web:7", 33, 7, []),
        ("1000:audio", 1000, 51, []),
        (":44", 0, 44, []),
        ("4294967294", 4294967294, 0, []),
    ],
)
def test_user(converted: Convert, text: str, uid: int, gid: int, groups: list[int]) -> None:
    user = converted({"User": text})["process"]["user"]
    assert (user["uid"], user["gid"], user.get("additionalGids", [])) == (uid, gid, groups)


@pytest.mark.parametrize(
    "text", ["nobody", "root:nogroup", "web:", "bad", "4294967295", "99999999999", "-1", "web:x:y"]
)
def test_users_that_are_not_there(converted: Convert, text: str) -> None:
    with pytest.raises(ImageError, match="/config/User"):
        converted({"User": text})


@pytest.mark.parametrize("target", ["/etc/other", "other", "../etc/./other", "/../../etc/other"])
def test_passwd_behind_a_link_is_the_image_s(converted: Convert, tmp_path: Path, target: str) -> None:
    (tmp_path / "etc/passwd").unlink()
    (tmp_path / "etc/other").write_text("x:x:9:9::/:\n")
    (tmp_path / "etc/passwd").symlink_to(target)
    assert converted({"User": "x"})["process"]["user"] == {"uid": 9, "gid": 9}


def test_passwd_that_is_not_a_file(converted: Convert, tmp_path: Path) -> None:
    (tmp_path / "etc/passwd").unlink()
    os.mkfifo(tmp_path / "etc/passwd")
    with pytest.raises(ImageError, match="not a regular file"):
        converted({"User": "x"})
    (tmp_path / "etc/passwd").unlink()
    (tmp_path / "etc/passwd").write_bytes(bytes(accounts.MAX_FILE + 1))
    with pytest.raises(ImageError, match="larger than"):
        converted({"User": "x"})


def test_annotations(converted: Convert) -> None:
    source = {
        "StopSignal": "SIGQUIT",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"org.opencontainers.image.author": "label", "own": "x"},
    }
    top = {
        "author": "field",
        "created": "2026-01-01T00:00:00Z",
        "variant": "v8",
        "os.version": "1",
        "os.features": ["a"],
    }
    found = converted(source, **top)["annotations"]
    prefix = "org.opencontainers.image."
    assert found == {
        prefix + "os": "linux",
        prefix + "architecture": "amd64",
        prefix + "variant": "v8",
        prefix + "os.version": "1",
        prefix + "os.features": "a",
        prefix + "author": "label",  # labels take precedence
        prefix + "created": "2026-01-01T00:00:00Z",
        prefix + "stopSignal": "SIGQUIT",
        prefix + "exposedPorts": "53/udp,80/tcp",
        "own": "x",
    }


def test_volumes(converted: Convert) -> None:
    source: Json = {"Volumes": {"/data": {}, "/cache": {}}}
    added = converted(source)["mounts"][-2:]
    assert [(mount["destination"], mount["type"]) for mount in added] == [("/cache", "tmpfs"), ("/data", "tmpfs")]
    assert [mount["source"] for mount in converted(source, volumes="bind")["mounts"][-2:]] == ["volumes/0", "volumes/1"]
    assert converted(source, volumes="none")["mounts"] == default.config()["mounts"]
    with pytest.raises(UsageError, match="--volumes"):
        converted(source, volumes="other")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"Env": "A=1"}, "/config/Env"),
        ({"Cmd": [1]}, "/config/Cmd"),
        ({"WorkingDir": 1}, "/config/WorkingDir"),
        ({"Labels": {"a": 1}}, "/config/Labels"),
        ({"Volumes": ["/x"]}, "/config/Volumes"),
        ({"Volumes": {"x": {}}}, "/config/Volumes"),
        ([], "x"),
    ],
)
def test_configurations_that_are_refused(converted: Convert, source: Any, text: str) -> None:
    if source == []:
        assert converted(source)["process"]["args"] == []  # an empty array contains no values
        return
    with pytest.raises(ImageError, match=text):
        converted(source)


@pytest.mark.parametrize("field", [{"Env": ["no-equals"]}, {"WorkingDir": "relative"}])
def test_checks_of_create_apply(converted: Convert, field: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match="cannot be run"):
        unpack.check(converted(field))


def test_a_user_without_a_group_is_none(converted: Convert) -> None:
    process = converted({"User": "9"})["process"]
    assert (process["user"], "HOME=/half" in process["env"]) == ({"uid": 9, "gid": 0}, False)
    with pytest.raises(ImageError, match="no user"):
        converted({"User": "half"})


def test_another_command(converted: Convert) -> None:
    assert convert.with_command(converted({"Cmd": ["a"], "Entrypoint": ["b"]}), ["c", "d"])["process"]["args"] == [
        "c",
        "d",
    ]
    assert convert.with_command(converted({"Cmd": ["a"]}), [])["process"]["args"] == ["a"]
    with pytest.raises(UsageError, match="neither Entrypoint nor Cmd"):
        convert.with_command(converted(None), [])


@pytest.mark.parametrize(
    ("option", "value"), [("entries=7", 7), ("entries=2k", 2048), ("entries=2M", 2 << 20), ("entries=3g", 3 << 30)]
)
def test_limits_of_the_command_line(option: str, value: int) -> None:
    assert limits.parse([option]).entries == value


@pytest.mark.parametrize(
    "option", ["entries", "entries=", "entries=k", "entries=2kk", "entries=-1", "enter=1", "entries=\u0663"]
)
def test_limits_that_are_none(option: str) -> None:
    with pytest.raises(UsageError, match="expected NAME=NUMBER"):
        limits.parse([option])


def test_limits_have_at_most_15_digits() -> None:
    assert limits.parse(["bytes=" + "9" * 15]).bytes == 10**15 - 1
    with pytest.raises(UsageError):
        limits.parse(["bytes=" + "9" * 16])


def test_rootless(converted: Convert) -> None:
    own = Identity(owners=False, devices=False, mappings=default.own_ids(1000, 1000))
    config = converted({"User": "web"}, own)
    assert config["process"]["user"] == {"uid": 0, "gid": 0} and config["linux"]["uidMappings"][0]["hostID"] == 1000
    assert "HOME=/var/www" in config["process"]["env"]
    mapped = Identity(owners=True, devices=False, mappings=default.own_ids(1000, 1000))
    config = converted({"User": "web"}, mapped)
    assert config["process"]["user"]["uid"] == 33 and config["linux"]["uidMappings"][0]["hostID"] == 1000
    assert converted({"User": "web"})["process"]["user"]["uid"] == 33


WRONG: dict[str, tuple[Any, ...]] = {
    "an array of strings": ("a", {"a": 1}, [1], ["a", None], 3, ("a",)), "a string": (["a"], {"a": 1}, 3, True),
    "an object": ("a", ["a"], 3, True),
}  # fmt: skip
FIELDS = {
    "an array of strings": ("/config/Entrypoint", "/config/Cmd", "/config/Env", "/os.features"),
    "a string": ("/config/User", "/config/WorkingDir", "/config/StopSignal", "/os", "/architecture", "/variant",
                 "/os.version", "/author", "/created"),
    "an object": ("/config", "/config/Volumes", "/config/ExposedPorts", "/config/Labels"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in FIELDS.items() for field in fields])
def test_fields_of_the_wrong_type(tree: Tree, kind: str, field: str) -> None:
    for value in WRONG[kind]:
        *above, name = field.split("/")[1:]
        document: Any = {"os": "linux", "architecture": "amd64", "config": {}}
        (document["config"] if above else document)[name] = value
        image = Image(Descriptor("a/b", digest(b""), 0), document, [])
        with pytest.raises(ImageError) as caught:
            convert.convert(image, tree, volumes="tmpfs", ids=ROOT, warnings=Warnings())
        assert str(caught.value).startswith(f"{field}: expected {kind}, found ")


def test_labels_are_strings(tree: Tree) -> None:
    image = Image(Descriptor("a/b", digest(b""), 0), {"config": {"Labels": {"a": "b", "c": 1}}}, [])
    with pytest.raises(ImageError, match=r"^/config/Labels: expected an object of strings$"):
        convert.convert(image, tree, volumes="tmpfs", ids=ROOT, warnings=Warnings())
