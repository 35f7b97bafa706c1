"""A worker: read cases from standard input and write the facts of every runtime to standard output,
as JSON lines.

`python -m integration.differential.worker NAME PROGRAM RUNTIME=PATH...`
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from integration import harness, machine
from integration.differential import model, observe, sandbox
from integration.differential.runner import Peer, Run


def answer(case: model.Case, peers: list[Peer], program: Path) -> dict[str, Any]:
    """The facts of a case on each runtime, and its stderr at each step."""
    found: dict[str, Any] = {"facts": {}, "said": {}}
    for peer in peers:
        outcome = Run(peer, case, program).outcome()
        found["facts"][peer.name] = observe.facts(outcome, host())
        found["said"][peer.name] = [step["said"] for step in outcome["steps"]]
    return found


def host() -> observe.Host:
    """The sandbox's namespaces and peer groups."""
    links = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    return observe.Host(links, observe.groups_of(Path("/proc/self/mountinfo").read_text()))


def main(argv: list[str]) -> int:
    name, program, *rest = argv
    peers = [Peer(*pair.partition("=")[::2]) for pair in rest]
    requests = os.fdopen(os.dup(0), "r")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    places = {Path(os.path.realpath(peer.path)).parent.parent for peer in peers} | {Path(program).parent}
    places = {path for path in places if not str(path).startswith(("/usr", f"{harness.REPO}/"))}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # removes what `enter` created
    ended = sandbox.enter(name, sorted(places))
    if ended:
        return 1
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    machine.become_subreaper()
    for line in requests:
        try:
            reply = answer(model.Case.load(line), peers, Path(program))
        except Exception:
            reply = {"error": traceback.format_exc()}
        answers.write(json.dumps(reply) + "\n")
        if "error" in reply:
            return 1  # the next case gets a new sandbox
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    os._exit(status)
