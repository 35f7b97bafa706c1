"""Mount options: the whole table, against mount_setattr(2) and the lists of config.md."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from json_type import Json
from plan_support import Facts, compiled, names, step, steps
from pyrunc.errors import ConfigError
from pyrunc.plan import mount_options, mounts
from pyrunc.plan.context import Namespaces
from pyrunc.plan.mount_options import PROPAGATIONS, Flags, clean
from pyrunc.plan.mounts import cgroup_source
from pyrunc.spec.types import Namespace


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        ({"options": ["bind"]}, ("/s", False)),
        ({"options": ["rbind"]}, ("/s", True)),
        ({"type": "bind"}, ("/s", False)),
        ({"options": ["bind"], "source": "s"}, ("/b/s", False)),
        ({"options": ["bind", "remount"]}, None),
        ({"options": []}, None),
        # The sources of these mounts come with the plan.
        ({"options": ["bind"], "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}, None),
        ({"options": ["bind", "idmap"]}, None),
        ({"options": ["bind", "ridmap"]}, None),
    ],
)
def test_binds_that_are_cloned_before_the_user_namespace(mount: dict[str, Any], expected: object) -> None:
    mappings = [{"containerID": 0, "hostID": 1000, "size": 10}]
    linux = {"namespaces": [{"type": "user"}, {"type": "mount"}], "uidMappings": mappings, "gidMappings": mappings}
    plan = compiled({"mounts": [{"destination": "/d", "source": "/s", **mount}], "linux": linux})
    clones = [(args["path"], args["policy"] == {"RECURSIVE"}) for args in steps(plan, "OPEN_TREE")]
    assert clones == ([expected] if expected else [])
    if clones:
        assert step(plan, "MOUNT")["tree"] == step(plan, "OPEN_TREE")["slot"]


@pytest.mark.parametrize(
    ("fstype", "kind", "bound"),
    [("proc", "pid", "/proc"), ("mqueue", "ipc", "/dev/mqueue"), ("sysfs", "network", "/sys")],
)
def test_filesystems_bound_from_the_host(fstype: str, kind: str, bound: str) -> None:
    """If the kernel refuses a new mount, but never if that would show processes or queues of
    others."""
    other: Json = {"type": kind}
    joined: Json = {"type": kind, "path": "/proc/1/ns/x"}
    user: Namespace = {"type": "user"}

    def source(*namespaces: Namespace, rootless: bool = False) -> str:
        return mounts.host_source(fstype, Facts(rootless=rootless), Namespaces({"namespaces": list(namespaces)}))

    assert source(user) == source(rootless=True) == bound
    assert source() == source(user, other) == source(other, rootless=True) == ""
    assert source(user, joined) == source(joined, rootless=True) == (bound if fstype == "sysfs" else "")
    assert mounts.host_source("tmpfs", Facts(rootless=True), Namespaces({"namespaces": [user]})) == ""


# config.md, Mounts: MUST, SHOULD and MAY
MUST = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "rbind",
    "relatime",
    "remount",
    "ro",
    "rprivate",
    "rshared",
    "rslave",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "sync",
    "unbindable",
]
SHOULD = [
    "idmap",
    "ridmap",
    "nosymfollow",
    "symfollow",
    "rro",
    "rrw",
    "rsuid",
    "rnosuid",
    "rdev",
    "rnodev",
    "rexec",
    "rnoexec",
    "rdiratime",
    "rnodiratime",
    "rrelatime",
    "rnorelatime",
    "ratime",
    "rnoatime",
    "rstrictatime",
    "rnostrictatime",
    "rsymfollow",
    "rnosymfollow",
]
MAY = ["mand", "nomand", "tmpcopyup"]

# option -> (attr_set, attr_clr) on a bind, from <linux/mount.h>
FLAGS = {
    "ro": (0x1, 0),
    "rw": (0, 0x1),
    "nosuid": (0x2, 0),
    "suid": (0, 0x2),
    "nodev": (0x4, 0),
    "dev": (0, 0x4),
    "noexec": (0x8, 0),
    "exec": (0, 0x8),
    "noatime": (0x10, 0x70),
    "atime": (0, 0x10),  # less than the field: if the mount is in that mode
    "strictatime": (0x20, 0x70),
    "nostrictatime": (0, 0x20),
    "relatime": (0, 0x70),
    "norelatime": (0, 0),
    "nodiratime": (0x80, 0),
    "diratime": (0, 0x80),
    "nosymfollow": (0x200000, 0),
    "symfollow": (0, 0x200000),
}
PROPAGATION = {"shared": 1, "slave": 2, "private": 3, "unbindable": 4}
SUPER = {"sync": ["sync"], "dirsync": ["dirsync"], "lazytime": ["lazytime"], "mand": ["mand"]}
NOTHING = ["defaults", "async", "nolazytime", "nomand", "silent", "loud", "iversion", "noiversion"]


def mount(*options: str, **fields: Any) -> dict[str, Any]:
    return {"destination": "/d", "source": "/s", "options": list(options), **fields}


def bind(*options: str) -> dict[str, Any]:
    return step(compiled({"mounts": [mount("bind", *options)]}), "MOUNT")


def fresh(*options: str, kind: str = "ext4") -> dict[str, Any]:
    return step(compiled({"mounts": [mount(*options, type=kind)]}), "MOUNT")


def numbers(args: dict[str, Any]) -> tuple[int, int, int, int]:
    return args["attr_set"], args["attr_clr"], args["rec_set"], args["rec_clr"]


def test_option_table_matches_the_specification() -> None:
    assert set(mount_options.OPTIONS) == set(MUST) | set(SHOULD) | set(MAY)


@pytest.mark.parametrize("option", FLAGS)
def test_attribute_of_a_bind(option: str) -> None:
    assert numbers(bind(option)) == (*FLAGS[option], 0, 0)


@pytest.mark.parametrize("option", FLAGS)
def test_recursive_attribute_of_a_bind(option: str) -> None:
    """A tree has no single access-time mode to withdraw, so the whole field is cleared."""
    on, off = FLAGS[option]
    assert numbers(bind("r" + option)) == (0, 0, on, 0x70 if off & 0x70 else off)


@pytest.mark.parametrize("option", FLAGS)
@pytest.mark.parametrize("prefix", ["", "r"])
def test_attribute_of_a_new_filesystem(option: str, prefix: str) -> None:
    """fsmount(2) starts with no flags: there is nothing to clear, and nothing below."""
    args = fresh(prefix + option)
    assert numbers(args) == (FLAGS[option][0], 0, 0, 0)
    assert args["data"] == (["ro"] if option == "ro" else [])


@pytest.mark.parametrize("option", PROPAGATION)
def test_propagation(option: str) -> None:
    assert bind(option)["propagation"] == PROPAGATION[option]
    assert fresh("r" + option)["propagation"] == PROPAGATION[option] | 8


def test_propagation_keeps_its_order() -> None:
    assert bind("slave", "rshared", "rshared", "private")["propagation"] == 0x392
    assert bind(*["shared", "slave"] * 4)["propagation"] == 0x21212121


@pytest.mark.parametrize("option", SUPER)
def test_superblock_flag(option: str) -> None:
    assert fresh(option)["data"] == SUPER[option]
    assert bind(option)["data"] == []
    assert numbers(fresh(option)) == numbers(bind(option)) == (0, 0, 0, 0)


@pytest.mark.parametrize("option", NOTHING)
def test_options_without_effect(option: str) -> None:
    for args in (fresh(option), bind(option)):
        assert numbers(args) == (0, 0, 0, 0)
        assert (args["data"], args["propagation"]) == ([], 0)


def test_every_option_is_tested() -> None:
    tested = {
        *FLAGS,
        *("r" + name for name in FLAGS),
        *PROPAGATION,
        *("r" + name for name in PROPAGATION),
        *SUPER,
        *NOTHING,
    }
    assert tested | {"bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"} == set(mount_options.OPTIONS)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["ro", "rw"], (0, 1, 0, 0)),
        (["rw", "ro"], (1, 0, 0, 0)),
        # mount(2) accepts all of them: strictatime overrides noatime, which overrides relatime
        (["noatime", "strictatime"], (0x20, 0x70, 0, 0)),
        (["strictatime", "noatime"], (0x20, 0x70, 0, 0)),
        (["strictatime", "relatime"], (0x20, 0x70, 0, 0)),
        (["noatime", "relatime"], (0x10, 0x70, 0, 0)),
        # a negation withdraws only its own option
        (["strictatime", "atime"], (0x20, 0x70, 0, 0)),
        (["noatime", "nostrictatime"], (0x10, 0x70, 0, 0)),
        (["noatime", "norelatime"], (0x10, 0x70, 0, 0)),
        (["noatime", "atime"], (0, 0x10, 0, 0)),
        (["relatime", "norelatime"], (0, 0, 0, 0)),
        # a recursive option includes the mount itself
        (["ro", "rrw"], (0, 0, 0, 1)),
        (["rw", "rro"], (0, 0, 1, 0)),
        (["noatime", "rstrictatime"], (0, 0, 0x20, 0x70)),
        (["rro", "rw"], (0, 1, 1, 0)),
        (["rnosuid", "nodev"], (4, 0, 2, 0)),
    ],
)
def test_later_option_wins(options: list[str], expected: tuple[int, ...]) -> None:
    assert numbers(bind(*options)) == expected


PLAIN = sorted(
    set(mount_options.OPTIONS)
    - {"bind", "rbind", "remount", "tmpcopyup"}
    - set(PROPAGATION)
    - {"r" + p for p in PROPAGATION}
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PLAIN), max_size=12))
def test_arguments_are_valid_for_the_kernel(options: list[str]) -> None:
    """The rules of mount_setattr(2): the access-time field is cleared as a whole or not at all.

    Only attr_clr may have less of it; init makes it whole or nothing.
    """
    flags = Flags(options)
    flags.change(Facts(), replace=False)
    for on, off in ((flags.set, flags.clr | flags.implied), (flags.rec_set, flags.rec_clr)):
        assert off & 0x70 in (0, 0x70) or (off == flags.clr | flags.implied and not on & 0x70)
        assert on & 0x70 in (0, 0x10, 0x20)
        assert not on & 0x70 or off & 0x70 == 0x70
        assert not on & off & ~0x70
    assert not flags.implied & (flags.set | flags.clr)
    # The result is idempotent.
    flags, again = Flags(options), Flags(options + options)
    flags.fold()
    again.fold()
    assert flags.set == again.set
    assert (flags.clr, flags.rec_set, flags.rec_clr) == (0, 0, 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([name for name in FLAGS if "atime" not in name]), max_size=8))
def test_attributes_against_a_model(options: list[str]) -> None:
    """The model applies one option after the other, like mount(8)."""
    state = 0
    for option in options:
        on, off = FLAGS[option]
        state = (state & ~off) | on
    args = bind(*options)
    assert args["attr_set"] == state


BITS = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "nodiratime": 0x80, "nosymfollow": 0x200000}
MODES = {"relatime": 0, "noatime": 0x10, "strictatime": 0x20}


def remounted(options: list[str], source: set[str]) -> set[str]:
    """The flags of a bind of ``source`` after mount(2).

    MS_BIND, then MS_REMOUNT|MS_BIND with the flags that are named, if any. The second call replaces
    all flags, and the access time only if a flag names it (fs/namespace.c, path_mount). Beyond
    mount(2), an option can withdraw a flag of the source (mount(8)).
    """
    flags: set[str] = set()
    cleared: set[str] = set()
    for option in options:
        name = {"rw": "ro", "atime": "noatime"}.get(option)
        if name is None and (option in BITS or option in MODES):
            flags.add(option)
            cleared.discard(option)
        else:
            name = name or (option[2:] if option.startswith("no") else "no" + option)
            flags.discard(name)
            cleared.add(name)
    if not options:
        return source
    times = {*MODES, "nodiratime"}
    if not flags & times:
        kept = source & times - (cleared - {"relatime"})
        return flags | kept | (set() if kept & set(MODES) else {"relatime"})
    mode = next(mode for mode in ("strictatime", "noatime", "relatime") if mode in flags or mode == "relatime")
    return flags - set(MODES) | {mode}


def attributes(flags: set[str]) -> int:
    return sum(BITS.get(name, MODES.get(name, 0)) for name in flags)


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(FLAGS)), max_size=6),
    st.sets(st.sampled_from(sorted(BITS))),
    st.sampled_from(sorted(MODES)),
)
def test_bind_flags_match_mount(options: list[str], flags: set[str], mode: str) -> None:
    """Named flags replace those of the source; without any, those of the source stay."""
    source = {*flags, mode}
    args = bind(*options)
    on, off = args["attr_set"], args["attr_clr"] | args["implied"]
    had = attributes(source)
    if off & 0x70 not in (0, 0x70):  # init: the modes that are taken back, if the mount is in one of them
        off = off | 0x70 if off & had & 0x70 else off & ~0x70
    assert had & ~off | on == attributes(remounted(options, source))


@pytest.mark.parametrize("options", [[], ["defaults"], ["rprivate"], ["rslave"], ["rro"], ["rnosuid"], ["mode=755"]])
def test_other_options_imply_no_flags(options: list[str]) -> None:
    assert bind(*options)["implied"] == 0


@pytest.mark.parametrize("option", [*NOTHING, *SUPER, "rw"])
def test_any_flag_clears_the_others(option: str) -> None:
    expected = 0 if option == "defaults" else 0x20000F & ~(1 if option == "rw" else 0)
    assert bind(option)["implied"] == expected
    assert fresh(option)["implied"] == 0


def test_recursive_flag_keeps_an_earlier_plain_one_named() -> None:
    assert bind("dev", "rnodev")["implied"] == 0x20000F


def test_flags_unknown_to_the_kernel_are_not_cleared() -> None:
    plan = compiled({"mounts": [mount("bind", "ro")]}, facts=Facts(kernel=(5, 13)))
    assert step(plan, "MOUNT")["implied"] == 0xE


@pytest.mark.parametrize("options", [["remount"], ["remount", "bind"], ["remount", "size=1m"]])
def test_a_remount_replaces_all_flags(options: list[str]) -> None:
    """As mount(2) does."""
    plan = compiled({"mounts": [mount(*options, type="tmpfs")]})
    assert step(plan, "MOUNT")["implied"] == 0x20000F


def test_bind_in_place_of_a_cgroup_mount_has_its_flags() -> None:
    entry = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]}
    args = step(compiled({"mounts": [entry], "linux": {"namespaces": [{"type": "mount"}]}}), "MOUNT")
    assert (args["policy"], args["attr_set"], args["implied"]) == ({"BIND"}, 0x3, 0x20000C)


def test_type_bind_is_a_bind() -> None:
    args = step(compiled({"mounts": [{"destination": "/d", "type": "bind", "source": "s"}]}), "MOUNT")
    assert (args["policy"], args["source"], args["fstype"]) == ({"BIND"}, "/b/s", "")


def test_rbind_wins_over_bind() -> None:
    for options in (["bind", "rbind"], ["rbind", "bind"], ["rbind"]):
        assert step(compiled({"mounts": [mount(*options)]}), "MOUNT")["policy"] == {"BIND", "RECURSIVE"}


def test_unknown_options_reach_the_filesystem_in_order() -> None:
    assert fresh("b=1", "nosuid", "a", "b=2")["data"] == ["b=1", "a", "b=2"]


@pytest.mark.parametrize("options", [["mode=0755"], ["mode=755", "size=1m"]])
def test_tmpfs_mode_given(options: list[str]) -> None:
    assert fresh(*options, kind="tmpfs")["policy"] == set()


def test_read_only_comes_last_in_finish() -> None:
    plan = compiled({"mounts": [mount("ro", type="tmpfs"), mount("ro", type="ext4")], "root": {"readonly": True}})
    assert [args["attr_set"] for args in steps(plan, "MOUNT")] == [0, 1]
    late = step(plan, "REMOUNT_RO")
    assert (late["attr_set"], late["dest"], late["origin"]) == (1, "/d", "/mounts/0")
    order = names(plan)
    assert order.index("PIVOT") < order.index("REMOUNT_RO") < order.index("ROOT_RO")


def test_a_read_only_bind_of_type_tmpfs_is_a_bind() -> None:
    plan = compiled({"mounts": [mount("bind", "ro", type="tmpfs")]})
    assert step(plan, "MOUNT")["attr_set"] == 1
    assert steps(plan, "REMOUNT_RO") == []


@pytest.mark.parametrize("dest", ["/dev", "/dev/", "//dev", "dev", "/x/../dev", "/./dev"])
def test_bind_of_dev_is_recognized(dest: str) -> None:
    plan = compiled({"mounts": [{"destination": dest, "source": "/dev", "options": ["rbind"]}]})
    assert "DEV_NODE" not in names(plan) and "DEV_LINK" not in names(plan) and "REOPEN_NULL" not in names(plan)


@pytest.mark.parametrize("dest", ["/dev2", "/dev/pts", "/x/dev"])
def test_other_binds_do_not_replace_dev(dest: str) -> None:
    plan = compiled({"mounts": [{"destination": dest, "source": "/dev", "options": ["rbind"]}]})
    assert names(plan).count("DEV_NODE") == 6


def test_nodes_in_a_bound_dev_keep_their_modes() -> None:
    """Otherwise `-v /dev:/dev --device X` would change or create a node on the host."""
    device = {"path": "/dev//fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0}
    patch = {
        "mounts": [{"destination": "/dev", "source": "/dev", "options": ["rbind"]}],
        "linux": {"devices": [device]},
    }
    assert step(compiled(patch), "DEV_NODE")["policy"] == {"DEFAULT", "THERE"}
    configured = [args for args in steps(compiled({"linux": {"devices": [device]}}), "DEV_NODE") if args["major"] == 10]
    assert configured[0]["policy"] == set()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", "/a"),
        ("/", "/"),
        ("a", "/a"),
        ("/a/", "/a"),
        ("//a//b", "/a/b"),
        ("/a/../b", "/b"),
        ("/..", "/"),
        ("/a/.b", "/a/.b"),
    ],
)
def test_clean(path: str, expected: str) -> None:
    assert clean(path) == expected


@pytest.mark.parametrize(
    ("cgroup", "facts", "expected"),
    [
        ("/a", {}, "/sys/fs/cgroup/a"),
        ("", {"own_cgroup": "/me"}, "/sys/fs/cgroup/me"),
        ("", {}, "/sys/fs/cgroup"),
        ("/r/a", {"cgroup2_root": "/r"}, "/sys/fs/cgroup/a"),
        ("/r", {"cgroup2_root": "/r"}, "/sys/fs/cgroup"),
        ("/rx/a", {"cgroup2_root": "/r"}, ""),
        ("/a", {"cgroup2_mount": ""}, ""),
    ],
)
def test_cgroup_source(cgroup: str, facts: dict[str, str], expected: str) -> None:
    spaces = Namespaces({"namespaces": [{"type": "cgroup"}]})
    assert cgroup_source(cgroup, Facts(**facts), spaces) == expected


@pytest.mark.parametrize("spaces", [[], [{"type": "cgroup"}]])
def test_tmpcopyup_is_refused_on_a_cgroup_mount(spaces: list[dict[str, str]]) -> None:
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["tmpcopyup"]}
    with pytest.raises(ConfigError, match=r'/mounts/0/options: expected "tmpcopyup" on a tmpfs only'):
        compiled({"mounts": [mount], "linux": {"namespaces": [{"type": "mount"}, *spaces]}})


@pytest.mark.parametrize(
    ("value", "policy"),
    [(None, set()), ("private", set()), ("rshared", set()), ("slave", {"SLAVE"}), ("rslave", {"SLAVE"})],
)
def test_root_receives_host_mounts_only_on_request(value: str | None, policy: set[str]) -> None:
    plan = compiled({"linux": {"rootfsPropagation": value}})
    assert step(plan, "ROOT")["policy"] == policy
    assert step(plan, "PROPAGATION")["propagation"] == (PROPAGATIONS[value] if value else 10)


@pytest.mark.parametrize(
    ("mount", "propagation"),
    [
        ({"options": ["rbind"]}, 10),
        ({"options": ["rbind", "rshared"]}, 9),
        ({"options": ["rbind", "idmap"], "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}, 11),
        ({"options": ["rbind"], "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}, 11),
    ],
)
def test_bind_is_a_peer_of_the_host_only_on_request(mount: dict[str, Any], propagation: int) -> None:
    entry = {"destination": "/mnt", "source": "/s", **mount}
    if "uidMappings" in mount:
        entry["gidMappings"] = mount["uidMappings"]
    plan = compiled({"mounts": [entry], "linux": {"rootfsPropagation": "shared"}})
    assert [args["propagation"] for args in steps(plan, "MOUNT") if args["dest"] == "/mnt"] == [propagation]


def test_unbindable_root_can_still_be_bound() -> None:
    plan = compiled({"linux": {"rootfsPropagation": "unbindable"}})
    assert step(plan, "PROPAGATION")["propagation"] == 10
    assert step(plan, "ROOT_PROPAGATION")["propagation"] == 4
