"""Every document that a comment, a docstring or a page cites is in the tree or in a
specification."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".py", ".c", ".h", ".md", ".sh", ".def", ".build", ".toml", ".pyi", ".options"}
# Pages of runtime-spec, image-spec and distribution-spec, which readers find by their names.
SPECIFICATIONS = {
    "config.md", "config-linux.md", "runtime.md", "runtime-linux.md", "bundle.md", "features.md", "features-linux.md",
    "conversion.md", "layer.md", "manifest.md", "image-index.md", "image-layout.md", "descriptor.md", "media-types.md",
}  # fmt: skip
CITATION = re.compile(r"(?<![\w.*/-])((?:[\w.-]+/)*[\w.-]+\.md)\b")


def tracked() -> list[Path]:
    """The files of the tree except build products."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    found = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    return [path for path in found if path.is_file()]


@cache
def documents() -> set[str]:
    """Each document by every tail of its path: docs/callers.md is also callers.md."""
    out = set()
    for path in tracked():
        if path.suffix == ".md":
            parts = path.relative_to(ROOT).parts
            out |= {"/".join(parts[at:]) for at in range(len(parts))}
    return out


def citations(text: str) -> set[str]:
    """The documents that a text cites, except those with a web address."""
    text = re.sub(r"https?://\S+", "", text)
    return {name.removeprefix("./") for name in CITATION.findall(text)}


def missing(path: Path) -> set[str]:
    found = set()
    for name in citations(path.read_text(encoding="utf-8", errors="replace")):
        while name.startswith("../"):
            name = name[3:]
        if name not in SPECIFICATIONS and name not in documents():
            found.add(name)
    return found


def test_every_cited_document_is_there() -> None:
    looked = [path for path in tracked() if path.suffix in SUFFIXES or path.name == "Makefile"]
    assert len(looked) > 300
    bad = {str(path.relative_to(ROOT)): found for path in looked if path != Path(__file__) and (found := missing(path))}
    assert bad == {}


def test_no_row_of_a_table_is_cited() -> None:
    """Rows have no numbers in a page, and the sections of a page here have names."""
    cited = re.compile(r"\.md,? (?:rows? )?\d")
    looked = [path for path in tracked() if path.suffix in SUFFIXES - {".md"} and path != Path(__file__)]
    bad = [str(path.relative_to(ROOT)) for path in looked if cited.search(path.read_text(errors="replace"))]
    assert looked and bad == []


def test_citations_are_recognized() -> None:
    text = "see callers.md, Words; [x](../docs/adr/0001-x.md) and (config-linux.md, Mounts); https://example.org/y.md"
    assert citations(text) == {"callers.md", "../docs/adr/0001-x.md", "config-linux.md"}
    assert "nowhere.md" not in documents() and "docs/callers.md" in documents() and "callers.md" in documents()
