"""Mutants of Python source, found in the syntax tree and created as text edits."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from integration.mutants.mutant import ROOT, Mutant, unique

# Generated files, and files that only define names.
LEFT_OUT = {"pyrunc/plan/ops.py", "pyrunc/build.py", "pyrunc/__init__.py"}
PER_TABLE = 4  # mutants of each kind in one literal table, so that a table of 200 names does not dominate a sample

# Time limits, delays and buffer sizes: a similar number is equally correct.
TUNING = re.compile(r"TIMEOUT|TICK|FRESH|PAUSE|WAIT|CHUNK|BUFFER|SLACK|RETR|_MS\b|SECONDS")

# A clock or a point in time: no test can hit the one instant at which < and <= differ.
INSTANT = re.compile(r"\b(end|deadline|until)\b|\btime\.(monotonic|process_time|time)(_ns)?\(")

# The number for an OSError without one, which only the type checker knows.
NO_ERRNO = re.compile(r"\.errno or \w+$")

# A read's buffer may be one byte larger, and the kernel ignores the source of a mount without a device.
READS = {"read", "read_file", "recv", "recv_into", "recvmsg", "pread"}
BUFFER = 256  # bytes; a smaller number is the size of a structure

# A type alias, which only annotations use.
ALIAS = re.compile(r"(tuple|list|dict|set|type|Literal|Callable|Sequence|Mapping|Iterable)\[|(int|str|bytes) \|")

# A comparison of a descriptor with 0 checks whether it exists. None is 0, because 0, 1 and 2 are
# open from the start.
FD = re.compile(r"\b(\w*fd|sock|listener|console)$")

COMPARE: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=",), ast.LtE: ("<",), ast.Gt: (">=",), ast.GtE: (">",), ast.Eq: ("!=",), ast.NotEq: ("==",),
    ast.Is: ("is not",), ast.IsNot: ("is",), ast.In: ("not in",), ast.NotIn: ("in",),
}  # fmt: skip
BINARY: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "//"), ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"),
    ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"), ast.BitAnd: ("&", "|"), ast.BitXor: ("^", "|"),
}  # fmt: skip
ENDS = (ast.Raise, ast.Return, ast.Continue, ast.Break)


def mutants_of(path: Path, root: Path = ROOT) -> list[Mutant]:
    """All mutants of a file."""
    text = path.read_text(encoding="utf-8")
    return unique(Finder(str(path.relative_to(root)), text).all())


def files(root: Path = ROOT) -> list[Path]:
    """The files to mutate."""
    found = sorted((root / "pyrunc").rglob("*.py"))
    return [path for path in found if str(path.relative_to(root)) not in LEFT_OUT]


class Finder(ast.NodeVisitor):
    """Walk one module and collect edits."""

    def __init__(self, file: str, source: str) -> None:
        self.file, self.source = file, source
        self.code = source  # with blanked strings, so that their brackets do not count
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.by_line = source.splitlines(keepends=True)
        self.scope: list[str] = []
        self.found: list[Mutant] = []
        self.table: dict[str, int] | None = None  # number of mutants of each kind in the enclosing literal table

    def all(self) -> list[Mutant]:
        """Every mutant of the file."""
        tree = ast.parse(self.source)
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str | bytes):
                start, end = self.span(node)
                self.code = self.code[:start] + " " * (end - start) + self.code[end:]
        self.visit(tree)
        return self.found

    # -- places ------------------------------------------------------------------------------------

    def at(self, line: int, column: int) -> int:
        """The offset in the text; ast's columns count bytes."""
        text = self.by_line[line - 1] if line <= len(self.by_line) else ""
        return self.starts[line - 1] + (column if text.isascii() else len(text.encode()[:column].decode()))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """The start and end offsets of a node."""
        start = self.at(node.lineno, node.col_offset)  # type: ignore[attr-defined]
        return start, self.at(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def text(self, node: ast.AST) -> str:
        """The node's own text."""
        start, end = self.span(node)
        return self.source[start:end]

    def add(self, kind: str, start: int, end: int, text: str) -> None:
        """Add a mutant, unless the enclosing table already has enough of its kind."""
        if self.table is not None:
            self.table[kind] = self.table.get(kind, 0) + 1
            if self.table[kind] > PER_TABLE:
                return
        self.found.append(Mutant(self.file, ".".join(self.scope), kind, start, end, text, self.source))

    def replace(self, kind: str, node: ast.AST, text: str) -> None:
        """Replace a node with another text."""
        self.add(kind, *self.span(node), text)

    def between(self, kind: str, left: ast.AST, right: ast.AST, old: str, new: str) -> None:
        """Replace the operator between two nodes."""
        start, end = self.span(left)[1], self.span(right)[0]
        match = re.search(
            r"\s*".join(map(re.escape, old.split())) if old[0] != "n" else r"not\s+in", self.source[start:end]
        )
        if match:
            self.add(kind, start + match.start(), start + match.end(), new)

    # -- statements --------------------------------------------------------------------------------

    def scoped(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        """Mutate the body and the defaults, but not annotations and docstrings, which have no
        effect."""
        self.scope.append(node.name)
        if not isinstance(node, ast.ClassDef):
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    self.visit(default)
        for statement in node.body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue
            if ast.unparse(statement).startswith("__slots__"):
                continue
            self.visit(statement)
        self.scope.pop()

    visit_FunctionDef = scoped
    visit_AsyncFunctionDef = scoped
    visit_ClassDef = scoped

    def visit_Module(self, node: ast.Module) -> None:
        for statement in node.body:
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                self.visit(statement)

    def visit_Import(self, node: ast.Import) -> None:
        """Skip imports: without them nothing works."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Skip imports."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if ast.unparse(node).startswith("TYPE_CHECKING") or (not self.scope and ALIAS.match(ast.unparse(node.value))):
            return
        if isinstance(node.targets[0], ast.Attribute | ast.Subscript):
            self.replace("statement dropped", node, "pass")
        if isinstance(node.targets[0], ast.Name) and TUNING.search(node.targets[0].id):
            return
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.replace("statement dropped", node, "pass")
        self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        self.replace("statement dropped", node, "pass")
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        self.replace("statement dropped", node, "pass")

    def visit_Raise(self, node: ast.Raise) -> None:
        self.replace("check dropped", node, "pass")
        if node.exc is not None:
            self.visit(node.exc)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            self.replace("check dropped", node, "pass")
        else:
            if not (isinstance(node.value, ast.Constant) and not node.value.value):  # None is as false as 0 and ""
                self.replace("result dropped", node, "return None")
            self.visit(node.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        self.replace("loop", node, "break")

    def visit_Break(self, node: ast.Break) -> None:
        self.replace("loop", node, "continue")

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return
        self.condition(node.test)
        if isinstance(node.body[-1], ENDS) and not node.orelse:
            self.replace("check dropped", node.test, "False")
        self.parts(node.test, *node.body, *node.orelse)

    def visit_While(self, node: ast.While) -> None:
        if not isinstance(node.test, ast.Constant):
            self.condition(node.test)
        self.parts(node.test, *node.body)

    def visit_Assert(self, node: ast.Assert) -> None:
        """Skip assertions, which are for the type checker."""

    def visit_Try(self, node: ast.Try) -> None:
        for handler in node.handlers:
            first, last = handler.body[0], handler.body[-1]
            if not isinstance(first, ast.Raise):
                self.add("handler dropped", self.span(first)[0], self.span(last)[1], "raise")
        if node.finalbody:
            self.add("handler dropped", self.span(node.finalbody[0])[0], self.span(node.finalbody[-1])[1], "pass")
        bodies = [statement for handler in node.handlers for statement in handler.body]
        self.parts(*node.body, *bodies, *node.orelse, *node.finalbody)

    def parts(self, *nodes: ast.AST) -> None:
        """Visit the children."""
        for node in nodes:
            self.visit(node)

    # -- expressions -------------------------------------------------------------------------------

    def condition(self, test: ast.expr) -> None:
        """Negate a condition."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.replace("condition negated", test, f"({self.text(test.operand)})")
        elif not (
            isinstance(test, ast.Compare) and len(test.ops) == 1 and not isinstance(test.ops[0], ast.Lt | ast.Gt)
        ):
            self.replace("condition negated", test, f"(not ({self.text(test)}))")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.condition(test)
            self.replace("check dropped", test, "True")
        self.parts(node.iter, *node.ifs)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        values = node.values
        if NO_ERRNO.search(self.text(node)):
            return
        for index, value in enumerate(values):
            start, end = self.span(value)
            if index + 1 < len(values):
                end = self.span(values[index + 1])[0]
            else:
                start = self.span(values[index - 1])[1]
            start, end = self.with_brackets(start, end, index + 1 < len(values))
            self.add("operand dropped", start, end, "")
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in itertools.pairwise(values):
            self.between("and/or", left, right, old, new)
        self.generic_visit(node)

    def with_brackets(self, start: int, end: int, forward: bool) -> tuple[int, int]:
        """The span including the parentheses around an operand, which ast omits."""
        text = self.code
        open_ = text.count("(", start, end) - text.count(")", start, end)
        while forward and open_ > 0 and text[end - 1] == "(":
            end, open_ = end - 1, open_ - 1
        while forward and open_ < 0:
            start = text.rindex("(", 0, start)
            open_ = text.count("(", start, end) - text.count(")", start, end)
        while not forward and open_ < 0 and text[start] == ")":
            start, open_ = start + 1, open_ + 1
        while not forward and open_ > 0:
            end = text.index(")", end) + 1
            open_ = text.count("(", start, end) - text.count(")", start, end)
        return start, end

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            is_fd = FD.search(self.text(left)) and isinstance(right, ast.Constant) and right.value == 0
            is_instant = isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) and INSTANT.search(self.text(node))
            for new in COMPARE[type(op)] if not (is_fd or is_instant) else ():
                self.between("comparison", left, right, _symbol(op), new)
            left = right
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.BitOr):
            # Python adds close-on-exec by itself (PEP 446).
            if not self.text(node.right).endswith(("O_CLOEXEC", "O_RDONLY")):
                self.add("flag dropped", self.span(node.left)[1], self.span(node.right)[1], "")
            if not self.text(node.left).endswith(("O_CLOEXEC", "O_RDONLY")):  # the latter is 0
                self.add("flag dropped", self.span(node.left)[0], self.span(node.right)[0], "")
        elif isinstance(node.op, ast.LShift) and isinstance(node.left, ast.Constant) and _is_size(node.right):
            return  # 16 << 20: a similar number is equally correct
        elif type(node.op) in BINARY and not isinstance(node.left, ast.JoinedStr) and not _is_text(node):
            self.between("operator", node.left, node.right, *BINARY[type(node.op)])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Invert | ast.Not):
            self.replace("operator", node, f"({self.text(node.operand)})")
        elif isinstance(node.operand, ast.Constant):
            return  # -1 is a constant of its own
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        node.args[:] = [arg for arg in node.args if not _is_ignored(name, arg)]
        for keyword in node.keywords:
            if keyword.arg == "encoding" and ast.unparse(keyword.value) == "'utf-8'":
                continue  # it is the default of every locale that Python runs with (PEP 538, PEP 540)
            if keyword.arg and len(node.args) + len(node.keywords) > 1:
                start, end = self.span(keyword)
                start = self.source.rindex(",", 0, start) if self.source[:start].rstrip()[-1] == "," else start
                self.add("argument dropped", start, end, "")
        if isinstance(function, ast.Attribute) and function.attr in STRING_METHODS:
            self.replace("call dropped", node, self.text(function.value))
        if isinstance(function, ast.Name) and function.id == "SysError" and len(node.args) > 1:
            del node.args[1]  # the name of a call, for messages
        if isinstance(function, ast.Name | ast.Attribute) and ast.unparse(function).split(".")[-1] in REPORTS:
            node.args[1:] = [arg for arg in node.args[1:] if not isinstance(arg, ast.Constant)]  # text of messages
        if isinstance(function, ast.Attribute) and function.attr == "sleep":
            return
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.slice, ast.Slice):
            for bound in (node.slice.lower, node.slice.upper):
                if bound is not None:
                    self.replace("slice", bound, "")
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Skip the text of messages; the embedded values are tested where they are computed."""

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if value is True or value is False:
            self.replace("constant", node, str(not value))
        elif type(value) is int:
            self.replace("constant", node, str({0: 1, 1: 0}.get(value, value + 1)))
        elif type(value) is float:
            self.replace("constant", node, str(value + 1))
        elif isinstance(value, str | bytes) and len(value.split()) == 1 and self.text(node)[0] != "(":
            quote = self.text(node)[-1]
            self.replace("constant", node, self.text(node)[:-1] + "XX" + quote)

    def table_of(self, node: ast.Tuple | ast.List | ast.Set | ast.Dict) -> None:
        """Drop one element of a literal collection."""
        keys: list[ast.expr | None] = list(node.keys) if isinstance(node, ast.Dict) else list(node.elts)
        values = node.values if isinstance(node, ast.Dict) else node.elts
        outer = self.table
        if isinstance(getattr(node, "ctx", None), ast.Store):
            return
        if self.table is None and len(keys) > 1:
            self.table = {}
        if len(keys) > 1 and not (isinstance(node, ast.Tuple) and len(keys) < 4):
            for index, (key, value) in enumerate(zip(keys, values, strict=True)):
                start, end = self.span(key if key is not None else value)[0], self.span(value)[1]
                if index + 1 < len(keys):
                    following = keys[index + 1]
                    end = self.span(following)[0] if following is not None else end
                    self.add("element dropped", start, end, "")
        self.generic_visit(node)
        self.table = outer

    visit_Tuple = table_of
    visit_List = table_of
    visit_Set = table_of
    visit_Dict = table_of


REPORTS = {"Problem", "bad", "warn", "bad_item"}
STRING_METHODS = {
    "strip", "rstrip", "lstrip", "lower", "upper", "removeprefix", "removesuffix", "decode", "encode", "replace",
    "casefold", "expandtabs",
}  # fmt: skip


def _symbol(op: ast.cmpop) -> str:
    return {
        ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is",
        ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
    }[type(op)]  # fmt: skip


def _is_ignored(name: str, arg: ast.expr) -> bool:
    """Whether an argument of a call may have another value: the type of a cast, the size of a buffer, the
    source of a mount without a device."""
    if not isinstance(arg, ast.Constant):
        return False
    if isinstance(arg.value, int):
        return name in READS and arg.value >= BUFFER
    return (name == "mount" and arg.value in ("none", b"none")) or name == "cast"


def _is_size(shift: ast.expr) -> bool:
    """Whether a shift count means KiB, MiB or GiB."""
    return isinstance(shift, ast.Constant) and shift.value in (10, 20, 30)


def _is_text(node: ast.BinOp) -> bool:
    """Whether an operator joins strings: another operator would only cause a TypeError."""
    sides = (node.left, node.right)
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in sides
    )


def sound(mutant: Mutant) -> bool:
    """Whether the changed file compiles."""
    try:
        compile(mutant.changed, mutant.file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def everything(root: Path = ROOT) -> Iterator[Mutant]:
    """All mutants of all files."""
    for path in files(root):
        yield from mutants_of(path, root)
