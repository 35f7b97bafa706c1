"""Print a plan: for people (`pyrunc plan`) and for programs (`pyrunc plan --json`)."""

from __future__ import annotations

from _struct import unpack
from itertools import zip_longest

from pyrunc.errors import printable
from pyrunc.errors import show as value_text
from pyrunc.plan import NO_SLOT, Plan, mount_options, ops, process, scheduling, security
from pyrunc.spec.names import CAPABILITIES, CLONE_FLAGS, RLIMITS, escape
from pyrunc.spec.rules_scheduling import REALTIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from pyrunc.spec.types import Config, Hook, Linux

    Args = Mapping[str, Any]  # of a step: int, str, bytes or list[str], by the kind in plan.def

WIDTH = 76  # of the arguments column; longer arguments only move the origin of their own line
_ATTRIBUTES = (
    (mount_options.RDONLY, "ro", "rw"),
    (mount_options.NOSUID, "nosuid", "suid"),
    (mount_options.NODEV, "nodev", "dev"),
    (mount_options.NOEXEC, "noexec", "exec"),
    (mount_options.NODIRATIME, "nodiratime", "diratime"),
    (mount_options.NOSYMFOLLOW, "nosymfollow", "symfollow"),
)
_ATIMES = {
    mount_options.RELATIME: "relatime",
    mount_options.NOATIME: "noatime",
    mount_options.STRICTATIME: "strictatime",
}
_PROPAGATIONS = {value: name for name, value in mount_options.PROPAGATIONS.items()}
# Shown as sb:ro and the like: options of the filesystem that look like options of the mount.
_SUPER_FLAGS = ("ro", "rw", "sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand")
_DEVICE_LETTERS = {0o020000: "c", 0o060000: "b", 0o010000: "p"}
_INFINITY = 0xFFFFFFFFFFFFFFFF
# The step after which launch runs the hooks of these kinds, in this order.
_SYNC_HOOKS = {ops.OP_SYNC_MOUNTED: ("prestart", "createRuntime"), ops.OP_EXECVE: ("poststart",)}

_BOLD, _FAINT, _YELLOW = "1", "2", "33"  # ECMA-48, select graphic rendition


def text(plan: Plan, config: Config | None = None) -> str:
    """The numbered listing: number, section, op, arguments and field of origin of each step.

    With ``config`` it includes the limits of the cgroup. Ends with a newline.
    """
    rows = _rows(plan)
    section, op = _widths(rows)
    args = min(WIDTH, max(len(row[3]) for row in rows))
    lines = [f"{n:>4} {sec:<{section}} {name:<{op}} {arg:<{args}}  {origin}" for n, sec, name, arg, origin in rows]
    return "\n".join(lines + _outside(plan, config)) + "\n"


def fitted(plan: Plan, config: Config | None, width: int, colour: bool) -> str:
    """`text` in lines of at most ``width`` characters: longer columns continue on the next line."""
    rows = _rows(plan)
    section, op = _widths(rows)
    left = 4 + 1 + section + 1 + op + 1
    room = max(width - left - 2, 16)  # a narrower terminal wraps the lines itself
    origins = min(max(len(row[4]) for row in rows), room * 2 // 5)
    args = min(room - origins, max(len(row[3]) for row in rows))
    lines = []
    for number, sec, name, arg, origin in rows:
        head = f"{number:>4} {sec:<{section}} {_paint(f'{name:<{op}}', _BOLD, colour)} "
        for words, where in zip_longest(_wrap(arg, args, " "), _wrap(origin, origins, "/"), fillvalue=""):
            lines.append(f"{head}{words:<{args}}  {_paint(where, _FAINT, colour)}".rstrip())
            head = " " * left
    for line in _outside(plan, config):
        attribute = _YELLOW if line.startswith("warning ") else ""
        lines += [_paint(part, attribute, colour) for part in _wrap(line, width, " ")]
    return "\n".join(lines) + "\n"


def _rows(plan: Plan) -> list[tuple[str, str, str, str, str]]:
    borders = _borders(plan)
    return [row for index in range(len(plan.steps)) for row in _step_rows(plan, index, borders)]


def _widths(rows: list[tuple[str, str, str, str, str]]) -> tuple[int, int]:
    return max(len(row[1]) for row in rows), max(len(row[2]) for row in rows)


def _paint(words: str, attribute: str, colour: bool) -> str:
    return f"\33[{attribute}m{words}\33[m" if colour and attribute and words else words


def _wrap(words: str, width: int, at: str) -> list[str]:
    """Parts of at most ``width`` characters, split before an ``at`` if possible.

    All but the first are indented.
    """
    parts, start, indent = [], 0, ""
    while len(words) - start + len(indent) > width:
        limit = start + width - len(indent)
        end = words.rfind(at, start + 1, limit + 1)
        end = end if end > start else limit
        parts.append(indent + words[start:end].rstrip())
        while at == " " and words[end : end + 1] == " ":
            end += 1
        start, indent = end, "  "
    return [*parts, indent + words[start:]] if words[start:] or not parts else parts


def as_json(plan: Plan, config: Config | None = None) -> dict[str, Any]:  # JSON, for the API too
    """The plan as JSON-ready objects: named arguments, blobs in hexadecimal, unused slots null."""
    steps, borders = [], _borders(plan)
    for index, (op, policy, _, _) in enumerate(plan.steps):
        name, _, args, bits = ops.OPS[op]
        values = arguments(plan, index)
        steps.append(
            {
                "step": index + 1,
                "section": _section(plan, index, borders),
                "op": name,
                "args": {arg[0]: _json_value(arg[1], values[arg[0]]) for arg in args},
                "policy": [bit for shift, bit in enumerate(bits) if policy >> shift & 1],
                "origin": plan.origins[index],
            }
        )
    return {
        "abi": ops.ABI,
        "steps": steps,
        "descriptors": [
            {"slot": slot, "kind": kind, "value": value, "origin": origin}
            for slot, (kind, value, origin) in enumerate(plan.fds, 1)
        ],
        "preservedDescriptors": plan.npreserve,
        "rlimits": [
            {"type": RLIMITS[number], "soft": soft, "hard": hard, "origin": origin}
            for number, soft, hard, origin in plan.rlimits
        ],
        "scheduler": _sched_attr(plan) or None,
        "cgroup": {
            "path": plan.cgroup_path,
            "owner": plan.cgroup_owner if plan.cgroup_owner >= 0 else None,
            "resources": _linux(config).get("resources", {}),
        },
        "netDevices": _linux(config).get("netDevices", {}),
        "hooks": plan.hooks,
        "warnings": _warnings(plan),
    }


def _borders(plan: Plan) -> tuple[int, int]:
    """The last step of ENTER, and the step that waits for `start`, which a plan of `exec` lacks."""
    ends = {
        step[0]: index for index, step in enumerate(plan.steps) if step[0] in (ops.OP_CLONE_INIT, ops.OP_WAIT_START)
    }
    return ends.get(ops.OP_CLONE_INIT, -1), ends.get(ops.OP_WAIT_START, len(plan.steps))


def _section(plan: Plan, index: int, borders: tuple[int, int]) -> str:
    """The section of a step: for most, the section that plan.def gives.

    A startContainer hook runs after start, and `exec` does in ENTER what `create` does in SETUP and
    FINISH.
    """
    op = plan.steps[index][0]
    if op == ops.OP_HOOK and index > borders[1]:
        return "RUN"
    return "ENTER" if index <= borders[0] else ops.OPS[op][1]


def arguments(plan: Plan, index: int) -> Args:
    """Arguments of one step by name: ints, strings, lists of strings, bytes."""
    op, _, numbers, strings = plan.steps[index]
    found = {}
    for name, kind, _, number, string in ops.OPS[op][2]:
        if string >= 0:
            found[name] = strings[string]
        elif kind == "u64":
            found[name] = numbers[number] | numbers[number + 1] << 32
        elif kind == "i32":
            found[name] = numbers[number] - (1 << 32 if numbers[number] >> 31 else 0)
        else:
            found[name] = numbers[number]
    return found


def _json_value(kind: str, value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    return None if kind == "fd" and value == NO_SLOT else value


# -- the listing -----------------------------------------------------------------------------------


def _step_rows(plan: Plan, index: int, borders: tuple[int, int]) -> Iterable[tuple[str, str, str, str, str]]:
    op, policy, _, _ = plan.steps[index]
    name, _, _, bits = ops.OPS[op]
    section = _section(plan, index, borders)
    words = _FORMATS.get(name, _generic)(arguments(plan, index))
    flags = " ".join(f"[{bit.lower().replace('_', '-')}]" for shift, bit in enumerate(bits) if policy >> shift & 1)
    yield str(index + 1), section, name, " ".join(part for part in (words, flags) if part), plan.origins[index]
    for kind in _SYNC_HOOKS.get(op, ()):
        for number, hook in enumerate(plan.hooks.get(kind, ())):
            yield "", "host", kind, _host_hook(hook), f"/hooks/{kind}/{number}"


def _host_hook(hook: Hook) -> str:
    words = [_command([hook["path"], *hook.get("args", [])[1:]])]
    if hook.get("timeout"):
        words.append(f"timeout={hook['timeout']}s")
    if hook.get("env"):
        words.append("env: " + _command(hook["env"]))
    return "  ".join(words)


def _outside(plan: Plan, config: Config | None) -> list[str]:
    """What the host side does: descriptors, cgroup, limits, hooks that run after the program."""
    lines = [""]
    for slot, (kind, value, origin) in enumerate(plan.fds, 1):
        lines.append(" ".join(("descriptor", str(slot), kind, value)).rstrip() + f"  {origin}")
    if plan.npreserve:
        lines.append(f"descriptors 3 to {2 + plan.npreserve} are passed on")
    owner = f"  given to uid {plan.cgroup_owner}" if plan.cgroup_owner >= 0 else ""
    lines.append(f"cgroup {plan.cgroup_path or 'none of its own'}{owner}")
    for name, limits in _linux(config).get("resources", {}).items():
        lines.append(f"  limit {name} {value_text(limits)}  /linux/resources/{name}")
    for name, entry in _linux(config).get("netDevices", {}).items():
        lines.append(f"network device {name} -> {entry.get('name') or name}  /linux/netDevices/{escape(name)}")
    for number, soft, hard, origin in plan.rlimits:
        lines.append(f"rlimit {RLIMITS[number]} soft={_limit(soft)} hard={_limit(hard)}  {origin}")
    attributes = _sched_attr(plan)
    if attributes:
        flags = [name for name, bit in scheduling.SCHEDULER_FLAGS.items() if attributes["flags"] & bit]
        lines.append(" ".join(["scheduler", _scheduler(attributes), *flags]) + "  /process/scheduler")
    for index, hook in enumerate(plan.hooks.get("poststop", ())):
        lines.append(f"hook poststop {_host_hook(hook)}  /hooks/poststop/{index}")
    return lines + [f"warning {warning}" for warning in _warnings(plan)]


def _warnings(plan: Plan) -> list[str]:
    more = [f"config.json: and {plan.warnings.more} more"] if plan.warnings.more else []
    return [f"config.json: {warning}" for warning in plan.warnings] + more


def _sched_attr(plan: Plan) -> dict[str, int]:
    """The scheduling class that the host side sets, named as in SCHEDULER; {} for none."""
    if not plan.sched_attr:
        return {}
    _, kind, flags, nice, priority, *times, _, _ = unpack("=IIQiIQQQII", plan.sched_attr)
    return dict(
        zip(("runtime", "deadline", "period"), times, strict=True), kind=kind, flags=flags, level=nice or priority
    )


def _linux(config: Config | None) -> Linux:
    return config.get("linux", {}) if config is not None else {}


def _limit(value: int) -> str:
    return "unlimited" if value == _INFINITY else str(value)


def _quoted(word: str) -> str:
    plain = word and word.isprintable() and not any(c in word for c in " \"'\\$`")
    return word if plain else '"' + printable(word.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _command(words: Iterable[str]) -> str:
    return " ".join(_quoted(word) for word in words)


def _generic(args: Args) -> str:
    """Strings without their names, numbers with them."""
    parts = []
    for name, value in args.items():
        if isinstance(value, list):
            parts.append(_command(value))
        else:
            parts.append(_quoted(value) if isinstance(value, str) else f"{name}={value}")
    return " ".join(parts)


def _flag_names(flags: int) -> str:
    return " ".join(name for name, bit in CLONE_FLAGS.items() if flags & bit)


def _slot(number: int) -> str:
    return "none" if number == NO_SLOT else f"descriptor {number}"


def _attributes(on: int, off: int, prefix: str) -> list[str]:
    words = [prefix + yes for bit, yes, _ in _ATTRIBUTES if on & bit]
    words += [prefix + no for bit, _, no in _ATTRIBUTES if off & bit & ~on]
    field = on & mount_options.ATIME_FIELD
    if field or off & mount_options.ATIME_FIELD:
        words.append(prefix + _ATIMES[field])
    return words


def _propagations(packed: int) -> list[str]:
    words = []
    while packed:
        words.append(_PROPAGATIONS[packed & 0xF])
        packed >>= 4
    return words


def _mount(args: Args) -> str:
    source = args["source"]
    if args["fstype"] and args["fstype"] != source:
        source = f"{args['fstype']} {_quoted(source)}" if source else args["fstype"]
    else:
        source = _quoted(source)
    words = _attributes(args["attr_set"], args["attr_clr"], "")
    if args["implied"]:
        words.append("only" if words else "no flags")
    words += _attributes(args["rec_set"], args["rec_clr"], "r")
    words += _propagations(args["propagation"])
    words += [f"sb:{item}" if item in _SUPER_FLAGS else _quoted(item) for item in args["data"]]
    if args["tree"]:
        words.append(f"tree in slot {args['tree']}")
    return "  ".join(part for part in (f"{source} -> {_quoted(args['dest'])}", " ".join(words)) if part)


def _dev_node(args: Args) -> str:
    letter = _DEVICE_LETTERS[args["kind"]]
    numbers = "" if letter == "p" else f" {args['major']}:{args['minor']}"
    owner = f" {args['uid']}:{args['gid']}" if args["uid"] or args["gid"] else ""
    return f"{_quoted(args['path'])} {letter}{numbers} {args['mode']:04o}{owner}"


def _hook(args: Args) -> str:
    words = [_command([args["path"], *args["args"][1:]])]
    if args["args"][0] != args["path"]:
        words.append("as " + _quoted(args["args"][0]))
    if args["timeout_ms"]:
        words.append(f"timeout={args['timeout_ms'] // 1000}s")
    if args["env"]:
        words.append("env: " + _command(args["env"]))
    return "  ".join(words)


def _console(args: Args) -> str:
    size = f"  {args['rows']} rows {args['cols']} columns" if args["rows"] or args["cols"] else ""
    return f"socket in {_slot(args['fd'])}  owner {args['uid']}:{args['gid']}{size}"


def _seccomp(args: Args) -> str:
    names = [name[20:].lower() for name, bit in security.SECCOMP_FLAGS.items() if args["flags"] & bit]
    size = f"{len(args['filter']) // 8} instructions" if args["filter"] else "filter"
    return " ".join([size, *names])


def _caps(mask: int) -> str:
    if not mask:
        return "none"
    if mask == (1 << len(CAPABILITIES)) - 1:
        return "all"
    return security.cap_names(mask).replace("CAP_", "").replace(",", "").lower()


def _cap_sets(args: Args) -> str:
    """The four sets; equal ones are shown together."""
    groups: dict[int, list[str]] = {}
    for name in ("effective", "permitted", "inheritable", "ambient"):
        groups.setdefault(args[name], []).append(name)
    return "  ".join(f"{'+'.join(names)}: {_caps(mask)}" for mask, names in groups.items())


def _gids(args: Args) -> str:
    gids = unpack(f"={len(args['gids']) // 4}I", args["gids"])
    return " ".join(map(str, gids)) or "none"


def _name(table: Mapping[str, int], wanted: int) -> str:
    return next(name for name, value in table.items() if value == wanted)


def _personality(args: Args) -> str:
    return _name(process.PERSONALITIES, args["persona"])


def _numbers(mask: bytes) -> str:
    bits = int.from_bytes(mask, "little")
    return ",".join(str(bit) for bit in range(bits.bit_length()) if bits >> bit & 1)


def _scheduler(args: Args) -> str:
    name = _name(scheduling.CLASSES, args["kind"])
    words = [name]
    if name != "SCHED_DEADLINE":
        words.append(f"{'priority' if name in REALTIME else 'nice'}={args['level']}")
    return " ".join(words + [f"{key}={args[key]}ns" for key in ("runtime", "deadline", "period") if args[key]])


def _wait_start(args: Args) -> str:
    if args["start_fd"] == NO_SLOT:
        return ""
    return f"start in {_slot(args['start_fd'])}, errors in {_slot(args['error_fd'])}"


_FORMATS: dict[str, Callable[[Args], str]] = {
    "OOM_SCORE": lambda a: str(a["value"]),
    "DUMPABLE": lambda a: str(a["value"]),
    "JOIN_NS": lambda a: f"{_flag_names(a['nstype'])} {_quoted(a['path'])} in {_slot(a['fd'])}",
    "PLACE": lambda a: f"cgroup in {_slot(a['cgroup_fd'])}",
    "MAKE_NODE": lambda a: f"{_dev_node(a)} {a['label']}".rstrip(),
    "OPEN_TREE": lambda a: f"{_quoted(a['path'])}  {' '.join(_propagations(a['propagation']))} to slot {a['slot']}",
    "UNSHARE": lambda a: _flag_names(a["flags"]),
    "TIME_OFFSETS": lambda a: ", ".join(a["offsets"]),
    "CPU_INITIAL": lambda a: _numbers(a["cpus"]),
    "CPU_FINAL": lambda a: _numbers(a["cpus"]) or "all of the cgroup",
    "SCHEDULER": _scheduler,
    "IO_PRIORITY": lambda a: f"{_name(scheduling.IO_CLASSES, a['kind'])} {a['level']}",
    "MEMORY_POLICY": lambda a: f"{_name(scheduling.MEMORY_MODES, a['mode'])} {_numbers(a['nodes'])}".rstrip(),
    "CLONE_INIT": lambda a: "" if a["cgroup_fd"] == NO_SLOT else f"cgroup in {_slot(a['cgroup_fd'])}",
    "PROPAGATION": lambda a: " ".join(_propagations(a["propagation"])),
    "ROOT_PROPAGATION": lambda a: " ".join(_propagations(a["propagation"])),
    "MOUNT": _mount,
    "MOUNT_LABEL": lambda a: f"{_quoted(a['dest'])} {_quoted(a['label'])}",
    "KEY_LABEL": lambda a: _quoted(a["label"]),
    "REMOUNT_RO": lambda a: _quoted(a["dest"]),
    "DEV_NODE": _dev_node,
    "DEV_LINK": lambda a: f"{a['path']} -> {a['target']}",
    "HOOK": _hook,
    "CONSOLE": _console,
    "SYSCTL": lambda a: f"{a['key']} = {_quoted(a['value'])}",
    "PERSONALITY": _personality,
    "UMASK": lambda a: f"{a['mask']:04o}",
    "STDIO_OWNER": lambda a: f"{a['uid']}:{a['gid']}",
    "FIND_HOME": lambda a: f"of uid {a['uid']}",
    "SECCOMP": _seccomp,
    "CAP_BOUND": lambda a: _caps(a["mask"]),
    "GROUPS": _gids,
    "RLIMIT": lambda a: f"{RLIMITS[a['resource']]} soft={_limit(a['soft'])} hard={_limit(a['hard'])}",
    "SET_IDS": lambda a: f"{a['uid']}:{a['gid']}",
    "CAPS": _cap_sets,
    "FIND_EXE": lambda a: f"{_quoted(a['file'])} in {_quoted(a['path'])}",
    "WAIT_START": _wait_start,
    "EXECVE": lambda a: "  env: ".join(part for part in (_command(a["args"]), _command(a["env"])) if part),
}
