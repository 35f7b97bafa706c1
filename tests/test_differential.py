"""The parts of the differential test on made-up outcomes: the generator, the comparison, the
entries, the reducer."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from integration.differential import (
    campaign,
    compare,
    conditions,
    crun,
    deviations,
    entries,
    generator,
    model,
    observe,
    reduce,
    report,
    runc,
)
from integration.differential.compare import ABSENT, Difference
from integration.differential.entries import Deviation, Pair
from integration.differential.model import Case, Feature
from json_type import Json
from pyrunc.errors import ConfigError
from pyrunc.spec import validate

HOST = observe.Host({"net": "net:[1]", "pid": "pid:[2]"}, frozenset({"7"}))
CASE = Case("config 1 of seed 2", [Feature("a", [["/hostname", "x"]])], [["create", []], ["start"]])
SAID = {name: ["", ""] for name in ("pyrunc", "runc", "crun")}
CONFIGS = 450


# --- the generator --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    return list(campaign.cases(11, CONFIGS, 80))


def test_a_case_is_the_same_whatever_else_is_drawn(drawn: list[Case]) -> None:
    assert generator.case(11, "config", 13) == drawn[13]
    assert generator.case(11, "sequence", 9) == drawn[CONFIGS + 9]
    assert list(campaign.cases(11, 5, 0, first=30)) == drawn[30:35]
    assert generator.case(12, "config", 13) != drawn[13]


def test_cases_differ(drawn: list[Case]) -> None:
    assert len({json.dumps([case.config(), case.caller, case.commands]) for case in drawn}) > 0.9 * len(drawn)


def test_everything_is_drawn(drawn: list[Case]) -> None:
    """Each builder of features, each kind of hook, each verb, and most options of mounts."""
    counts = Counter(kind for case in drawn for kind in set(case.kinds))
    wanted = model.words(
        """
        mount.bind.file mount.bind.directory mount.bind.host mount.tmpfs mount.below mount.proc mount.sysfs
        mount.mqueue mount.devpts mount.cgroup mount.overlay mount.idmapped namespaces namespaces.user
        namespaces.user.path namespaces.time process.user process.args process.env process.cwd process.terminal
        process.rlimits process.scheduling process.noNewPrivileges process.oomScoreAdj linux.devices
        linux.resources.devices linux.paths linux.sysctl linux.seccomp linux.seccomp.allow linux.cgroupsPath
        linux.personality root names annotations version hooks device.c device.b device.p command.create
        command.start command.run command.exec command.kill command.pause command.resume command.update
        command.delete command.ps command.list command.wait command.init-dies command.cgroup-gone
        """
    )
    wanted += [f"hook.{kind}" for kind in model.HOOKS]
    wanted += [
        f"mount.option.{name}"
        for name in model.words("ro rw nosuid nodev noexec rshared rslave rprivate rro rbind bind mode size idmap")
    ]
    assert [kind for kind in wanted if counts[kind] < 2] == []


def test_configs_are_valid(drawn: list[Case]) -> None:
    """Nearly all configs pass the rules of the specification; the others have values that only the
    host can reject."""
    refused = Counter[str]()
    for case in drawn:
        config: Json = case.config()
        try:
            validate.check(config)
        except ConfigError as error:
            refused.update({re.sub(r"/\d+", "/*", problem.pointer) for problem in error.problems})
    assert sum(refused.values()) < 0.06 * len(drawn), refused


def test_a_case_survives_its_text(drawn: list[Case]) -> None:
    loaded = [Case.load(case.dump()) for case in drawn]
    assert [case.dump() for case in loaded] == [case.dump() for case in drawn]
    assert [case.config() for case in loaded] == [case.config() for case in drawn]


# --- observation ----------------------------------------------------------------------------------


def outcome(**changed: Any) -> dict[str, Any]:
    state = {"ociVersion": "1.2.0", "id": "c", "status": "created", "pid": 4321, "bundle": "/w/b"}
    step = {"do": "create", "rc": 0, "state_rc": 0, "state": state, "init": "alive", "cgroup": "/box/c", "group": None}
    steps = [step | {"owner": "drwxr-xr-x 0:0", "ns": ["net:[9]"]}]
    left: Json = {"processes": [], "files": {}}
    return {
        "steps": steps,
        "force": 0,
        "hooks": [],
        "texts": [],
        "rootfs": {},
        "left": left,
        "joined": {},
        "pids": [4321],
    } | changed


def test_numbers_get_meanings() -> None:
    found = observe.facts(outcome(), HOST)
    assert found["step 0 create rc"] == 0
    assert found["step 0 create state pid"] == "init"
    assert found["step 0 create state ociVersion"] == "SemVer"
    names = observe.Names(HOST, {"ipc": "ipc:[5]"}, {"net:[9]"})
    links = {"net": "net:[9]", "pid": "pid:[2]", "ipc": "ipc:[5]", "uts": "uts:[3]"}
    assert names.namespaces(links) == {"net": "container", "pid": "host", "ipc": "joined ipc", "uts": "other"}
    assert names.propagation("shared:8 master:7") == "shared:own master:host"


def test_an_exec_in_a_container_whose_program_has_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its namespaces are those of the container's first process after some command."""
    monkeypatch.setattr(observe, "_report", lambda report, names: names.namespaces(report["ns"]))
    text = json.dumps({"action": "inside", "ns": {"net": "net:[9]", "uts": "uts:[3]"}}) + "\n"
    found = observe.facts(outcome(texts=[{"of": "exec", "text": text}]), HOST)
    assert {fact: value for fact, value in found.items() if fact.startswith("exec")} == {
        "exec inside is there": True, "exec inside net": "container", "exec inside uts": "other",
    }  # fmt: skip


def test_a_failing_verb_is_a_failing_verb_and_a_programs_status_is_its_own() -> None:
    step = outcome()["steps"][0]
    for verb, rc, wanted in (
        ("create", 3, "fails"),
        ("kill", 255, "fails"),
        ("exec", 7, 7),
        ("run", 137, 137),
        ("start", -1, -1),
    ):
        found = observe.facts(outcome(steps=[step | {"do": verb, "rc": rc}]), HOST)
        assert found[f"step 0 {verb} rc"] == wanted


def test_leftovers_are_facts() -> None:
    found = observe.facts(outcome(left={"processes": ["sleep"], "files": {}}), HOST)
    assert found["left processes"] == ["sleep"]


def test_mounts_on_one_place_are_numbered_from_below() -> None:
    """In mountinfo the upper one can come first: ids are assigned when a mount is created, not
    when it is attached."""
    text = (
        "30 40 0:5 /null /x ro - tmpfs b rw\n"
        "20 1 0:4 / / rw - tmpfs root rw\n"
        "40 20 0:6 /y /x rw shared:7 - ext4 a rw,discard\n"
    )
    files = dict.fromkeys(
        model.words(
            "status cgroup uid_map gid_map timens_offsets comm setgroups oom_score_adj coredump_filter loginuid"
        )
    )
    found: observe.Facts = {}
    observe._files(found, files | {"mountinfo": text}, observe.Names(HOST, {}, set()))
    assert found["mount /x is"] == "ext4 /y a"
    assert found["mount /x propagation"] == "shared:host"
    assert found["mount /x #2 is"] == "tmpfs /null b"
    assert found["mount /x #2 on"] == "/x"


# --- comparison -----------------------------------------------------------------------------------


def facts(**changed: Any) -> observe.Facts:
    return {
        "step 0 create rc": 0,
        "step 1 start rc": 0,
        "out inside is there": True,
        "out inside uid": [0],
        "left state": [],
    } | changed


def test_no_difference() -> None:
    assert compare.differences({"pyrunc": facts(), "runc": facts(), "crun": facts()}) == []


def test_whose_difference_it_is() -> None:
    (one,) = compare.differences({"pyrunc": facts(**{"out inside uid": [1]}), "runc": facts(), "crun": facts()})
    assert (one.fact, one.against, one.alone) == ("out inside uid", ("runc", "crun"), True)
    (one,) = compare.differences({"pyrunc": facts(), "runc": facts(), "crun": facts(**{"out inside uid": [1]})})
    assert (one.against, one.alone) == (("crun",), False)
    (one,) = compare.differences({"pyrunc": facts(new=1), "runc": facts(), "crun": facts()})
    assert one.values == {"pyrunc": 1, "runc": ABSENT, "crun": ABSENT}


def test_nothing_after_a_failure_is_compared() -> None:
    failing = facts(**{"step 0 create rc": "fails", "step 1 start rc": "fails", "out inside uid": ABSENT})
    found = compare.differences({"pyrunc": facts(), "runc": failing, "crun": facts(**{"left state": ["x"]})})
    assert [(one.fact, one.against, one.unknown) for one in found] == [
        ("step 0 create rc", ("runc",), ()),
        ("left state", ("crun",), ()),
    ]
    found = compare.differences({"pyrunc": facts(**{"out inside uid": [1]}), "runc": failing, "crun": facts()})
    assert ("out inside uid", ("crun",), ("runc",)) in [(one.fact, one.against, one.unknown) for one in found]


def test_the_view_of_a_program_that_did_not_run_is_ignored() -> None:
    silent = {fact: value for fact, value in facts().items() if not fact.startswith("out inside")}
    found = compare.differences({"pyrunc": silent, "runc": facts(), "crun": facts()})
    assert [one.fact for one in found] == ["out inside is there"]


def test_a_steps_outcome_comes_first() -> None:
    one, two = Difference("step 3 kill rc", {}, ("runc",)), Difference("out inside uid", {}, ("runc",))
    assert compare.first([two, one]) == [one]
    assert compare.first([two]) == [two]


def test_shapes_group_what_is_alike() -> None:
    assert compare.shape("step 12 kill state status") == compare.shape("step 3 kill state status")
    assert compare.shape("out inside mount /a/b #2 options") == compare.shape("out inside mount /c #3 options")
    assert (
        compare.shape("hook prestart-0 uid")
        == compare.shape("hook prestart-1 uid")
        != compare.shape("hook poststop-0 uid")
    )


# --- entries --------------------------------------------------------------------------------------


def test_every_peer_that_differs_must_be_covered() -> None:
    one = Difference("left x", {"pyrunc": 1, "runc": 2, "crun": 3}, ("runc", "crun"))
    for_runc = Deviation("r", "runc", "left .", "s", "why", lambda pair: pair.theirs == 2)
    for_crun = Deviation("c", "crun", "left .", "s", "why", lambda pair: pair.theirs == 3)
    assert entries.explain(CASE, one, [for_runc], SAID) == {"runc": for_runc, "crun": None}
    assert entries.explain(CASE, one, [for_runc, for_crun], SAID) == {"runc": for_runc, "crun": for_crun}
    assert entries.explain(CASE, one._replace(fact="left xy"), [for_runc, for_crun], SAID) == {
        "runc": None,
        "crun": None,
    }


def test_an_entry_may_ask_for_words() -> None:
    """The words of the command whose status differs, or of every command if the fact belongs to
    none."""
    entry = Deviation("r", "runc", "step . start rc|left .", "s", "why", said="no such")
    status = Difference("step 1 start rc", {"pyrunc": 0, "runc": 1, "crun": 0}, ("runc",))
    left = Difference("left x", {"pyrunc": 0, "runc": 1, "crun": 0}, ("runc",))
    for words, covered in (["", ""], (False, False)), (["no such", ""], (False, True)), (["", "no such"], (True, True)):
        said = {**SAID, "runc": words}
        assert (entry.covers(CASE, status, "runc", said), entry.covers(CASE, left, "runc", said)) == covered


def test_words_on_a_terminal_are_not_looked_for() -> None:
    """A foreground `run` with a terminal writes its errors there, where the test does not look."""
    entry = Deviation("r", "runc", "step . run rc|left .", "s", "why", said="no such")
    terminal = [Feature("t", [["/process/terminal", True]])]
    for features, command, covered in (
        (terminal, ["run", []], True), (terminal, ["run", ["--detach"]], False), ([], ["run", []], False),
    ):  # fmt: skip
        case = Case("config 1 of seed 2", features, [command])
        for fact in ("step 0 run rc", "left x"):
            one = Difference(fact, {"pyrunc": 0, "runc": 1, "crun": 0}, ("runc",))
            assert entry.covers(case, one, "runc", {name: [""] for name in SAID}) == covered, (command, fact)


def test_places_of_a_pair() -> None:
    edits: list[list[Any]] = [
        ["/mounts/-", {"destination": "/data", "type": "tmpfs", "options": ["tmpcopyup"]}],
        ["/mounts/-", {"destination": "mnt/sys", "source": "/sys", "options": ["rbind", "ro"]}],
    ]
    case = Case("config 1 of seed 2", [Feature("m", edits)], [["create", []]])
    for fact, inside in (("/data", True), ("/data/a", True), ("/database", False), ("/mnt/sys/b", True), ("/x", False)):
        assert conditions.to_place(Pair(case, f"out inside path {fact} mode", 1, 2)) == inside, fact
    assert conditions.bind_sources(Pair(case, "x", 1, 2)) == {"/sys"}
    assert conditions.private_pids(Pair(case, "x", 1, 2))
    joined = Case(case.name, [Feature("n", [["/linux/namespaces/0", {"type": "pid", "path": "/p"}]])], case.commands)
    assert not conditions.private_pids(Pair(joined, "x", 1, 2))


@pytest.mark.parametrize("entry", campaign.ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_is_narrow_and_gives_its_reason(entry: Deviation) -> None:
    assert set(entry.peers.split()) <= {"runc", "crun"}
    assert re.match(r"(runtime|config|config-linux)\.md#[a-z-]+$", entry.section)
    assert len(entry.reason) > 15
    for fact in (
        "out inside uid",
        "step 2 kill state status",
        "left processes",
        "left mounts",
        "out inside caps bounding",
        "hooks",
    ):
        one = Difference(fact, {"pyrunc": "ours", "runc": "theirs", "crun": "theirs"}, ("runc", "crun"))
        assert not any(entry.covers(CASE, one, peer, SAID) for peer in ("runc", "crun")), fact


def test_entries_have_names_of_their_own() -> None:
    names = [entry.name for entry in campaign.ENTRIES]
    assert len(set(names)) == len(names)
    assert {entry.peers for entry in deviations.ALL} == {"runc crun"}
    assert ({entry.peers for entry in runc.ALL}, {entry.peers for entry in crun.ALL}) == ({"runc"}, {"crun"})


# --- results, reduction ---------------------------------------------------------------------------


def test_results_count_and_keep() -> None:
    results = campaign.Results()
    answer = {
        "facts": {
            "pyrunc": facts(**{"out inside uid": [1]}),
            "runc": facts(),
            "crun": facts(**{"left state": [".cache"]}),
        },
        "said": SAID,
    }
    left = campaign.unexplained(CASE, answer, results)
    assert [one.fact for one in left] == ["out inside uid"]
    assert results.differences == {"alone": 1, "crun": 1}
    assert results.matched == {"crun: directories of its own in the state root": 1}
    assert results.compared == 5
    assert len(campaign.silent(results)) == len(campaign.ENTRIES) - 1
    text = campaign.Unexplained(CASE, left[0]).text()
    assert "python -m integration.differential --case 1 --seed 2 --show" in text


def test_the_page_says_what_was_found() -> None:
    results = campaign.Results()
    answer = {"facts": {"pyrunc": facts(**{"out inside uid": [1]}), "runc": facts(), "crun": facts()}, "said": SAID}
    campaign.unexplained(CASE, answer, results)
    results.shapes["runc crun"]["out inside uid"] = 1
    results.cases.update(["config"])
    results.counts.update(CASE.kinds)
    text = report.page(results, {"pyrunc": "1"}, 5)
    assert "| **unexplained** | **1** |" in text
    assert "| out inside uid | runc crun | 1 |" in text
    assert "- command: create 1, start 1" in text
    assert f"Entries that no case of this run matched: {campaign.ENTRIES[0].name}; " in text


def test_a_case_is_reduced_to_what_matters() -> None:
    features = [
        Feature(kind, [["/mounts/-", {"options": ["ro", "bind", "nosuid"], "source": kind}]]) for kind in "abcd"
    ]
    case = Case("x", features, [["create", []], ["start"], ["wait"], ["kill", "TERM"], ["delete"]])

    def shows(small: Case) -> bool:
        kept = [feature for feature in small.features if feature.kind == "c"]
        options = kept and kept[0].edits and kept[0].edits[0][1].get("options")
        return bool(options) and "bind" in options and ["kill", "TERM"] in small.commands

    small = reduce.reduce(case, shows)
    assert [feature.kind for feature in small.features] == ["c"]
    assert small.features[0].edits == [["/mounts/-", {"options": ["bind"]}]]
    assert small.commands == [["create", []], ["kill", "TERM"]]


def test_reducing_ends() -> None:
    calls = []

    def shows(small: Case) -> bool:
        calls.append(small)
        return bool(small.features)

    features = [Feature("a", [["/x", list(range(200))]])]
    reduce.reduce(Case("x", features, [["create", []]]), shows, limit=25)
    assert len(calls) == 25
