"""contrib/prose.py finds each phrase of its list in each kind of file, and the tree contains
none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from contrib import prose

ROOT = Path(__file__).resolve().parent.parent

# A sentence for each phrase of the list, in its order.
SENTENCES = [
    "A damaged file is told once.",
    "A scalar is no sequence.",
    "A node that was not there is an error.",
    "The container is made by create.",
    "The state is printed as runc has it.",
    "It ends the container, too.",
    "It maps the own id.",
    "The flag is without meaning.",
    "It waits until every process stands.",
    "The owner is that of the directory.",
    "It takes the mount namespace of the moment.",
    "It looks outside of the root.",
    "It is looked up once more.",
    "It waits for ever.",
    "It belongs to somebody else.",
    "The next command mends it.",
    "It has to phrase what goes wrong.",
    "Its owner is nobody they know.",
    "It puts the values in force again.",
    "After the filter it is too late.",
    "It lets it in.",
    "The plan has not the size.",
    "Of what v2 lacks the validation tells.",
]
GOOD = """\
The child reports a damaged file. There is no fallback, and none is needed. The option is no longer
used. A list is made of items, and is made up of records. An op stands for a call. Of course,
`it is told`. The parent tells the two kinds apart.
"""


def phrases(text: str) -> list[str]:
    return [advice for _, _, advice in prose.findings((1, text))]


def test_each_phrase_has_a_sentence() -> None:
    assert len(SENTENCES) == len(prose.PHRASES) > 20


@pytest.mark.parametrize(("sentence", "advice"), list(zip(SENTENCES, prose.PHRASES.values(), strict=True)))
def test_each_phrase_is_found(sentence: str, advice: str) -> None:
    assert advice in phrases(sentence)
    broken = sentence.replace(" ", "\n   ")
    assert advice in phrases(broken), "a phrase may go on in the next line"


def test_good_sentences_pass() -> None:
    assert phrases(GOOD) == []


@pytest.mark.parametrize(
    ("suffix", "text", "line"),
    [
        (".py", 'x = 1\n\n\ndef f():\n    """Say it.\n\n    A file is\n    told.\n    """\n', 8),
        (".py", "x = 1  # one\ny = 2  # it stands\n", 2),
        (".py", "# It waits for\n# ever.\n", 1),
        (".c", "/* Good. */\nint x; // it stands\n", 2),
        (".h", "/*\n * It waits\n * once\n * more.\n */\n", 3),
        (".md", "# Title\n\nIt waits\nfor ever.\n", 4),
        (".sh", "set -e\ntrue # it stands\n", 2),
        (".md", "short\n\n" + "a word " * 15 + "\n", 3),
    ],
)
def test_each_kind_of_file(
    suffix: str, text: str, line: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_text(text)
    assert prose.main([str(path)]) == 1
    out = capsys.readouterr().out
    assert re.findall(r":(\d+): ", out) == [str(line)], out


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".py", 'x = "it stands"\nstands = 1\n'),
        (".c", 'char *x = "// it stands"; int stands;\n'),
        (".md", "```\nit stands\n```\n\n    it stands\n\n`it stands`\n\n| " + "a " * 80 + "|\n"),
        (".sh", 'echo "${x#stands}"\n'),
    ],
)
def test_code_is_not_prose(suffix: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_text(text)
    assert (prose.main([str(path)]), capsys.readouterr().out) == (0, "")


def test_messages_of_python() -> None:
    text = (
        'report.bad(\n    pointer,\n    f"{name} is told",\n)\nraise SysError("it stands") from error\nraise error\n'
        'x = "it waits for ever"\nlog.debug("it is told" if x else "it is", hint="once more")\n'
    )
    assert sorted(prose.messages(text)) == [
        (3, "\N{MIDDLE DOT} is told"), (5, "it stands"), (8, "it is"), (8, "it is told"), (8, "once more"),
    ]  # fmt: skip


def test_messages_of_c() -> None:
    text = 'int x = call("for ever");\nif (x)\n    die(in, fault(in, EINVAL, "open", -1, 0,\n        "it; stands"));\n'
    assert list(prose.messages_of_c(text)) == [(3, "open"), (4, "it; stands")]


def test_the_tree_is_clean() -> None:
    done = subprocess.run([sys.executable, ROOT / "contrib/prose.py"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
