"""Whole documents of spec/, and the words and numbers in them, over inputs at which the result changes.

golden/spec_steps_documents.txt has the results (PYRUNC_UPDATE_GOLDEN=1 rewrites it; then review the diff).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from broken_configs import USERNS, changed
from pyrunc.spec import (
    exec_process,
    load,
    mappings,
    names,
    older,
    report,
    schema,
    structure,
    validate,
)
from spec_support import ROOT, USER, WHOLE, compare, extent, linux, outcome, rules, told
from test_results import results


def test_general_rules() -> None:
    def hooks(kind: str, **hook: Any) -> dict[str, Any]:
        return {"hooks": {kind: [hook]}}

    cases: list[Any] = [
        {}, *({"ociVersion": text} for text in ("1.0.0", "1.3.0", "1.3.9", "1.4.0", "0.9.0", "2.0.0", "x", "1.0")),
        *({"root": {"path": path}} for path in ("", "/", "/a/..", "a", ".", "/" + "x" * 4095)), {"root": {}},
        *(hooks(kind, path="x", env=["A=b", "c"]) for kind in ("prestart", "createRuntime", "createContainer",
                                                               "startContainer", "poststart", "poststop", "other")),
        {"hooks": {"poststop": [None, {"path": "/a"}]}},
    ]  # fmt: skip
    compare("spec_steps_documents", "general", rules(validate.general, cases))


def test_number_of_entries() -> None:
    def entries(missing: int) -> Any:
        counted = ("devices", "maskedPaths", "readonlyPaths", "sysctl")
        most = {name: [None] * 10 for name in counted} | {"sysctl": {f"{n}": "" for n in range(10)}}
        kinds = dict.fromkeys(
            ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
        )
        return {
            "linux": most, "hooks": {kind: [None] * 10 for kind in kinds},
            "mounts": [None] * (validate.ENTRIES_MAX - 100 - missing),
        }  # fmt: skip

    lines = rules(lambda case, found: validate.few_entries(entries(case), found), [-1, 0, 1])
    compare(
        "spec_steps_documents",
        "number of entries",
        [*lines, *rules(lambda case, found: validate.few_entries(case, found), [{}])],
    )


def test_when_the_rules_of_user_namespaces_apply() -> None:
    def rule(case: Any, found: report.Report) -> bool:
        found.mapped = case[0]
        return validate.needs_userns_rules(case[1], found)

    whole: list[Any] = [{}, linux(), linux(uidMappings=WHOLE), linux(gidMappings=WHOLE)]
    whole.append(linux(uidMappings=[], gidMappings=[]))
    cases = [(mapped, config) for mapped in (False, True) for config in whole]
    lines = []
    for facts in (None, ROOT, USER):
        for spaces in ((), ("user",)):
            lines += rules(rule, cases, facts=facts, spaces=spaces)
    compare("spec_steps_documents", "user namespace rules", lines)


NODES: dict[str, Any] = {
    "string": ("string", None), "word": ("string", ("a", "", "b")), "number": ("integer", -1, 5),
    "boolean": ("boolean",), "strings": ("array", schema.STRING), "numbers": ("array", ("integer", 0, 9)),
    "map": ("map", schema.STRING), "objects": ("map", ("object", {"a": schema.STRING}, ("a",))),
    "object": ("object", {"a": schema.STRING, "n": ("integer", 0, 9), "o": ("object", {"b": schema.STRING}, ()),
                          "w": ("string", ("x", "y"))}, ("a", "n")),
}  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, -2, 5, 6, 1.0, "", "a", "c", [], ["a"], ["a", 5, "b", None], [0, 9, 10, "a"], {},
    {"a": "b"},
    {"": "x"}, {"a": 5, "b/~": {}}, {"x": {"a": "b"}, "y": {}, "z": {"a": 5, "c": 1}, "": {"a": ""}},
    {"a": "x", "n": 5}, {"a": 1, "n": "x", "more": []}, {"n": 10, "o": {"b": 5, "c": 1}}, {"a": "", "n": 0, "o": []},
    {"a": "", "n": 0, "w": "z"}, {"a": "", "n": 0, "w": "y", "o": {}},
]  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_structure(name: str) -> None:
    """The problems of each value, what the rules get of it, and whether the value itself is kept."""

    def rule(value: Any, found: report.Report) -> object:
        before = json.dumps(value)
        fit = structure.structure(NODES[name], value, "p", found.problems)
        assert json.dumps(value) == before
        known = "" if found.problems else f" known {structure.without_unknown(NODES[name], value)}"
        return f"{'the same' if fit is value else 'nothing' if fit is report.NOTHING else fit}{known}"

    lines = [f"expects {structure.expectation(NODES[name])}"]
    compare("spec_steps_documents", f"structure {name}", lines + rules(rule, VALUES))


def test_a_hundred_problems_are_kept() -> None:
    lines = []
    for count in (99, 100, 102):
        found = report.Report()
        found.reported = ("5",)
        for number in range(count):
            found.bad(f"{number}", "x", number)
            found.bad_item("item", number, "y", number)
            found.warn(f"{number}", "z", number)
        sizes = (len(found.problems), found.problems.more, len(found.warnings), found.warnings.more)
        lines.append(f"{count}: {sizes} {found.problems[-1]} {found.problems[11]} {found.warnings[-1]}")
    for node, value in ((NODES["numbers"], [10] * 102), (NODES["objects"], {f"{n}": {} for n in range(102)})):
        found = report.Report()
        structure.structure(node, value, "p", found.problems)
        lines.append(f"{len(found.problems)} {found.problems.more} {found.problems[-1]}")
    compare("spec_steps_documents", "a hundred problems", lines)


def test_older_versions() -> None:
    def limit(version: str, pids: Any) -> object:
        config: Any = {"ociVersion": version, "linux": {"resources": {"pids": {**pids}} if pids is not None else {}}}
        older.adapt(config)
        return config["linux"]["resources"]

    cases = [(text, pids) for text in ("1.0.2", "1.2.9", "1.3.0", "1.3.0-rc.1", "x") for pids in (
        None, {}, {"limit": 0}, {"limit": 5}, {"limit": -1})]  # fmt: skip
    compare("spec_steps_documents", "older versions", results(limit, cases) + results(older.adapt, [{}, {"linux": {}}]))


# -- words and numbers -----------------------------------------------------------------------------


def test_values_in_messages() -> None:
    values = [report.NOTHING, None, True, False, 0, 1.5, "", "a", [], [1], [1, 2], {}, {"a": 1}]
    lines = [f"{one!r} {report.describe(one)}" for one in values[1:]] + [report.describe(values[0])]
    lines += results(lambda items: list(report.numbered(items, "/p")), [(None,), ([],), ([1, None, 0],)])
    compare("spec_steps_documents", "values", lines)


NO_MAPPINGS: list[Any] = [None, []]


def test_mappings() -> None:
    two = [extent(0, 1000, 5), extent(5, 2000, 5)]
    ids = (-1, 0, 4, 5, 9, 10, 999, 1000, 1004, 1005, 2004, 2005)
    lines = [f"{n} {mappings.map_id(two, n)} {mappings.host_id(two, n)} {mappings.has_host_id(two, n)}" for n in ids]
    lines += [f"{mappings.host_id(none, 7)} {mappings.has_host_id(none, 7)}" for none in NO_MAPPINGS]
    lines += results(mappings.text, [([],), (two,)])
    lines += results(mappings.parse, ["", "0 1 2\n", "0 1 2\n  3   4 5\n"])
    for text in ("0 1\n", "0 1 2 3\n", "a b c\n"):  # the words are the interpreter's
        with pytest.raises(ValueError):
            mappings.parse(text)
    split = [
        [extent(0, 10, 5), extent(5, 15, 5)], [extent(5, 15, 5), extent(0, 10, 5)], [extent(0, 10, 5), extent(5, 16,
        5)],
        [extent(0, 10, 5), extent(6, 15, 5)], [extent(0, 10, 2), extent(2, 12, 2), extent(4, 14, 2)], [],
    ]  # fmt: skip
    lines += results(mappings.merged, [(one,) for one in split])
    mounts = [{}, {"uidMappings": two}, {"gidMappings": two}, {"uidMappings": []}, {"options": ["idmap"]},
              {"options": ["ridmap"]}, {"options": ["ro"]}]  # fmt: skip
    compare("spec_steps_documents", "mappings", lines + results(mappings.is_idmapped, mounts))


NAMES: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "ids": (names.valid_id, ["", "a", "Z9_+.-", ".", "-a", "a b", "a/b", "\u00e4", "\u0661", "x" * 242, "x" * 243,
    "_"]),
    "users": (
        names.parse_user,
        ["0", "0:0", "1:", ":1", ":", "", "1:2:3", "4294967294", "4294967295", "-1", "\u0661", "1:4294967295", "01",
         "0" * 20, "0" * 21, "+1", "x"],
    ),
    "sysctl paths": (
        names.sysctl_path,
        ["", "a", "a.b", "a/b", "a.b/c", "a/b.c", "a..b", "a//b", "a/./b", "a/../b", ".a", "a.", "/a", "a/", "a.b\n",
         "a/" + "b" * 4093, "a/" + "b" * 4094, "a./.b", "a/..b", "net.ipv4.conf.eth0/1.x", "netX.a/b"],
    ),
    "cpu lists": (
        names.cpu_list,
        ["", "0", "0-3,7", " 1\n", "\t1", "3-1", "1-1", "1-", "-1", "a", "1,,2", "999999", "1000000", "1-999999",
         "1-1000000", "\u0661", "1-\u0661", "1 ,2", "0," * 32767 + "00", "0," * 32767 + "000"],
    ),
    "numbers of lists": (
        lambda text: names.listed(text, 9),
        ["", "0", "9", "10", "0-9", "0-10", "1,0", "1,1,1", "8-9,2-3", " 1 ", "x", "9,10", "10,0"],
    ),
    "versions": (
        names.version,
        ["1.2.3", "1.2", "1.2.3.4", "01.2.3", "0.0.0", "1.2.x", "1.2.", "1.2.3-", "1.2.3-a", "1.2.3-a.b", "1.2.3-a..b",
         "1.2.3-0", "1.2.3-01", "1.2.3-0a", "1.2.3-a-b", "1.2.3+", "1.2.3+01", "1.2.3+a.b", "1.2.3+a..b", "1.2.3-a+b",
         "1.2.3-\u00e4", "1.2.3-_", "999999999.0.0", "1000000000.0.0", "1.\u0661.0", "1.2.3+a+b", "1.2.3--"],
    ),
    "keys": (names.escape, ["", "a", "a/b", "a~b", "~1", "~/~/"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_words(name: str) -> None:
    compare("spec_steps_documents", name, results(*NAMES[name]))


# -- documents of other commands -------------------------------------------------------------------


def test_process_of_an_exec() -> None:
    own = {
        "args": ["own"], "cwd": "/own", "env": ["A=1"], "terminal": True, "noNewPrivileges": True,
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3]}, "capabilities": {"bounding": ["CAP_KILL"]},
        "apparmorProfile": "p", "selinuxLabel": "s", "oomScoreAdj": 5, "scheduler": {"policy": "x"},
        "ioPriority": {"class": "c"}, "execCPUAffinity": {"initial": "0"}, "rlimits": [1],
    }  # fmt: skip
    flags: list[Any] = [
        {}, {"cwd": "/f"}, {"env": ["B=2"]}, {"tty": True}, {"no-new-privs": False}, {"no-new-privs": True},
        {"apparmor": "q"}, {"apparmor": ""}, {"process-label": "t"}, {"process-label": ""}, {"cap": ["CAP_CHOWN"]},
        {"cap": []}, {"user": "5"}, {"user": "5:6"}, {"user": "x"}, {"additional-gids": ["7", "8"]},
        {"additional-gids": ["x"]}, {"additional-gids": []},
    ]  # fmt: skip
    lines = []
    for container in (own, {}, {"capabilities": {"inheritable": ["CAP_KILL"]}, "cwd": ""}):
        lines += results(lambda given, container=container: exec_process.build(container, ["x"], given), flags)
    documents: list[Any]
    documents = [{}, {"apparmorProfile": "", "capabilities": {}}, {"user": {"umask": 0}, "oomScoreAdj": 0}, own]
    containers: list[Any] = [own, {}, {"user": {"uid": 9}}]
    lines += results(exec_process.inherit, [(process, one) for process in documents for one in containers])
    documents = [
        b"{}", b"[]", b"{", b'{"args": ["a"], "cwd": "/"}', b'{"args": 5, "cwd": "x", "env": ["x"]}', b'"x"',
        b'{"args": ["a"], "cwd": "x"}', json.dumps({"args": [5] * 101, "cwd": "x"}).encode(),
    ]  # fmt: skip
    lines += results(lambda data: exec_process.parse(data, "process.json"), documents)
    processes: list[Any] = [
        {"args": ["a"], "cwd": "/"}, {"args": []}, {"args": ["a"], "capabilities": {"bounding": ["CAP_X"]}},
        {"args": ["a"], "apparmorProfile": "p"},
    ]  # fmt: skip
    lines += results(lambda process: exec_process.check(process, ROOT, "source"), processes)
    compare("spec_steps_documents", "process of an exec", lines)


def test_documents(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that cannot be read, and values of other types."""
    monkeypatch.chdir(tmp_path)
    for name, data in (("config.json", b"{}"), ("list", b"[]"), ("text", b'"x"'), ("yes", b"true"), ("null", b"null"),
                       ("number", b"5"), ("short", b"{")):  # fmt: skip
        (tmp_path / name).write_bytes(data)
    (tmp_path / "large").touch()
    with open(tmp_path / "large", "r+b") as file:
        file.truncate(load.MAX_BYTES + 1)
    paths = [
        "config.json", "./config.json", "list", "text", "yes", "null", "number", "short", "none", "none/config.json",
        "list/config.json", ".", "large", "/", "",
    ]  # fmt: skip
    lines = results(load.load_config, [*paths, "a\0b/config.json"]) + results(
        lambda path: len(load.read_document("s", path)), paths
    )
    compare("spec_steps_documents", "documents", lines)
    texts = [
        b"[NaN]", b"[-Infinity ]", b"[1e999}", b"[1e999,", b"[" + b"1" * 39 + b"e999]", b"[" + b"1" * 37 + b"e999]",
        b"[" + b"1" * 36 + b"e999]", b"[" + b"1" * 60 + b"e999]", b"\n\n [x]", b"\n[\n]\n]", b"[\"\xc3\xa4\", x]",
        b"{\"a\": 1, \"a\": 2}", b"\n \xff", b"{\"a\": \"\\u0000\", \"b\\u0000\": 1}",
        b"[1e999", b"\n[1e999\n,2]", b"[1e999\t]", b"[1e999\r]", b"\xfe\xff{", b"\xff\xfe{", b"\xff{", b"\n\xff", b"\n",
        b"[abcdefghijklmnopqrstuvwxyz]",
    ]  # fmt: skip
    compare("spec_steps_documents", "malformed documents", results(lambda data: load.parse_json(data, "x"), texts))


def test_every_member_is_checked_where_it_is() -> None:
    """`validate.check` passes each part to its rule, and only with a document of the right form."""
    cases: list[Any] = [
        [], {}, changed(("/mounts", [None] * 20000)), changed(("/mounts", [{"destination": "/a",
        "type": "t"}] * 20000)),
        changed(("/process", {"args": [], "cwd": "x"}), ("/mounts/0/destination", "/"), ("/hostname", "h" * 65),
                ("/linux/resources/cpu/idle", 2), ("/linux/uidMappings", WHOLE), ("/root/path", "/")),
        changed(*USERNS, ("/process/user/uid", 70)), changed(("/mounts/2/options", ["bind", "idmap"])),
        changed(("/ociVersion", "1.9.0"), ("/mounts/1/destination", "dev")),
        changed(("/process/args", 5), ("/process/cwd", "x")), changed(("/process/args", [5] * 101)),
    ]  # fmt: skip
    lines = []
    for facts in (None, ROOT, USER):
        for case in cases:
            lines.append(f"{told(case)[:40]}: {outcome(case, facts)}")
    compare("spec_steps_documents", "validate", lines)
