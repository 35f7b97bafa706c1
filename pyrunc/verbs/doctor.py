"""`doctor`: check whether containers can run on this host, and print fixes. Changes nothing."""

from __future__ import annotations

from pyrunc import command, interpreter

USAGE = "doctor [OPTIONS]"
SUMMARY = "check this host, and whether a bundle can run on it; changes nothing; exits with 1 if there are problems"
ARGS = (0, 0)
FLAGS: tuple[command.Flag, ...] = (
    ("bundle", "b", "DIR", "str", "also check what the config.json in DIR needs"),
    ("json", "", "", "bool", "print JSON"),
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Print the findings."""
    interpreter.complete()
    import json

    from pyrunc.doctor import findings, machine, run
    from pyrunc.verbs import plan

    host = machine.Machine()
    host.root_option, host.manager = context.root, context.cgroup_manager
    opts = command.create_options(context, "ID", values) if values.get("bundle") else None
    found = run.examine(host, opts)
    if values.get("json"):
        command.out(json.dumps(findings.as_json(found), indent=2) + "\n")
    else:
        command.out(findings.as_text(found, *plan.appearance()))
    return 1 if findings.counts(found)[findings.PROBLEM] else 0
