"""The four commands of `pyrunc seccomp`: options to one call each, output, exit status."""

from __future__ import annotations

import json
import posix

from pyrunc import command, fs
from pyrunc.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.launch.run import RunOptions


def explain(context: command.Context, values: command.Values, args: list[str]) -> int:
    """`seccomp explain`."""
    from pyrunc.seccomp_tools import explain, profile

    filter = profile.open_filter(args[0])
    if len(args) > 1:
        found = explain.answers(filter, args[1:])
        document: object = {"source": filter.source, "calls": [answer.as_json() for answer in found]}
        lines = explain.lines(found)
    else:
        summaries = [explain.Summary(filter, arch) for arch in filter.arches]
        document = {
            "source": filter.source,
            "default": explain.filter_default(filter),
            "architectures": [summary.as_json() for summary in summaries],
        }
        lines = explain.summary_lines(filter, summaries)
    return command.out(json.dumps(document, indent=2) + "\n" if values.get("json") else "\n".join(lines) + "\n")


def check(context: command.Context, values: command.Values, args: list[str]) -> int:
    """`seccomp check`: exit status 1 if there are problems."""
    from pyrunc.seccomp_tools import check, profile

    filter = profile.open_filter(args[0])
    findings = check.findings(filter, values.get("libc", ""))
    problems = sum(finding.level == "problem" for finding in findings)
    if values.get("json"):
        rows = [finding.as_json() for finding in findings]
        command.out(json.dumps({"source": filter.source, "problems": problems, "findings": rows}, indent=2) + "\n")
    else:
        command.out("".join(f"{finding}\n" for finding in findings) or f"{filter.source}: no findings\n")
    return 1 if problems else 0


def options(context: command.Context, values: command.Values) -> RunOptions:
    """The id of the traced container, which no other container has."""
    return command.run_options(context, f"seccomp-{posix.getpid()}", {"bundle": values.get("bundle", "")})


def trace(context: command.Context, values: command.Values, args: list[str]) -> int:
    """`seccomp trace`."""
    from pyrunc.seccomp_tools import profile
    from pyrunc.seccomp_tools import trace as tracing

    opts = options(context, values)
    document, base, source = profile.read(fs.join(opts.bundle, "config.json"))
    filter = profile.Filter(document, base, source) if document else None
    if values.get("denied") and filter is None:
        raise UsageError(f"--denied: {source} has no seccomp profile")
    fd = tracing.create(values["output"]) if values.get("output") else 2
    printer = tracing.Printer(filter, fd, as_json=values.get("json", False), denied=values.get("denied", False))
    code = tracing.Tracer(opts, args, printer).run()
    if not values.get("json"):
        tracing.write(fd, printer.summary() + "\n")
    return code


def record(context: command.Context, values: command.Values, args: list[str]) -> int:
    """`seccomp record`."""
    from pyrunc.seccomp_tools import record as recording
    from pyrunc.seccomp_tools.trace import Tracer

    path = values.get("output", "")
    recorder = recording.Recorder(recording.earlier(path))
    code = Tracer(options(context, values), args, recorder).run()
    document = recorder.profile()
    recorder.warn(context.log)
    text = json.dumps(document, indent=2) + "\n"
    if path:
        recording.save(path, text)
    if values.get("json"):
        command.out(json.dumps({"profile": document, "calls": recorder.calls()}, indent=2) + "\n")
    elif not path:
        command.out(text)
    return code
