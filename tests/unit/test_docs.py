"""The documents name only what exists: files behind links, modules, paths in the tree, options and metrics."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PACKAGES = ("proto", "peer", "supernode", "benchmarks", "tests")

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_MODULE = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+")
_PATH = re.compile(rf"(?:{'|'.join(PACKAGES)}|docs|\.ci)(?:/[\w.-]+)+/?")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchor(heading: str) -> str:
    """As GitHub makes it from a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def names(document: Path, pattern: re.Pattern[str]) -> list[str]:
    """What stands in backticks and is, as a whole, such a name."""
    return [code for code in _CODE.findall(document.read_text()) if pattern.fullmatch(code)]


def exists(module: str) -> bool:
    """A module, or a name in one."""
    parts = module.split(".")
    for count in range(len(parts), 0, -1):
        file = ROOT.joinpath(*parts[:count])
        if file.with_suffix(".py").is_file() or (file / "__init__.py").is_file():
            if count == len(parts):
                return True
            return hasattr(importlib.import_module(".".join(parts[:count])), parts[count])
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in _LINK.findall(document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = document.parent / path if path else document
        if not file.exists() or (
            fragment and fragment not in [anchor(heading) for heading in _HEADING.findall(file.read_text())]
        ):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_and_path_exists(document: Path) -> None:
    missing = [name for name in names(document, _MODULE) if not exists(name)]
    missing += [name for name in names(document, _PATH) if not (ROOT / name).exists()]
    assert missing == []
