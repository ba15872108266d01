"""The documents name only what exists, and all of what they list: modules, messages, routes, metrics, log events."""

from __future__ import annotations

import dataclasses
import importlib
import re
import runpy
from pathlib import Path

import pytest

import peer.metrics
import supernode.metrics
from benchmarks.cluster.metrics import parse
from peer.transport import wire
from proto.wire import codec
from supernode.api.routes import CHANGES, REMOVALS, ROUTES

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PACKAGES = ("proto", "peer", "supernode", "benchmarks", "tests")

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_MODULE = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+")
_PATH = re.compile(rf"(?:{'|'.join(PACKAGES)}|deploy|docs|\.ci)(?:/[\w.-]+)+/?")
# Files and hosts that are called as a package is.
_NO_MODULE = re.compile(r".*\.(?:key|layercast|toml)")
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
    modules = [name for name in names(document, _MODULE) if not _NO_MODULE.fullmatch(name)]
    missing = [name for name in modules if not exists(name)]
    missing += [name for name in names(document, _PATH) if not (ROOT / name).exists()]
    assert missing == []


def product_sources() -> str:
    """All product code."""
    return "".join(path.read_text() for package in PACKAGES[:3] for path in (ROOT / package).rglob("*.py"))


def first_cells(document: str) -> list[str]:
    """What stands in backticks in the first column of its tables."""
    lines = (ROOT / "docs" / document).read_text().splitlines()
    cells = [line.split("|")[1] for line in lines if line.startswith("|")]
    return [name for cell in cells for name in _CODE.findall(cell)]


def test_every_message_is_in_the_table_with_its_fields() -> None:
    lines = (ROOT / "docs" / "protocol.md").read_text().splitlines()
    rows = {name: line for line in lines if line.startswith("| `") for name in _CODE.findall(line.split("|")[1])}
    for message in codec.TAGS:
        cells = [
            [re.sub(r" \(.*?\)", "", word) for word in cell.split(", ")] for cell in rows[message.__name__].split(" | ")
        ]
        assert [field.name for field in dataclasses.fields(message)] in cells, message.__name__


def test_every_route_is_in_a_table() -> None:
    listed = first_cells("protocol.md")
    assert [path for path, _ in ROUTES if path not in listed] == []
    changes = [path for path, _ in (*CHANGES, *REMOVALS)]
    assert [path for path in changes if path not in listed and f"POST {path}" not in listed] == []
    assert wire.nonce_path() in listed


def test_every_metric_is_in_the_tables_and_no_other() -> None:
    node = peer.metrics.Metrics()
    node.answered("blob", 200)
    service = supernode.metrics.Metrics()
    service.refused.labels("frame")
    service.queue_changed("docker.io", "fetch", 1, 0.0)
    service.blobs_refused.labels("private")
    exposed: set[str] = set()
    for text in (node.text(), service.text()):
        exposed |= parse(text.decode()).names()
    listed = {name for name in first_cells("operations.md") if name.startswith("layercast_")}
    assert listed == {name for name in exposed if not name.endswith("_created")}


def test_every_log_event_in_the_table_is_logged() -> None:
    sources = product_sources()
    rows = (ROOT / "docs" / "operations.md").read_text().partition("## Log events")[2].partition("\n## ")[0]
    events = {name for name in _CODE.findall(rows) if re.fullmatch(r"[a-z]+(?:_[a-z]+)+", name)}
    assert len(events) > 30
    assert {
        event for event in events if f'"{event}' not in sources and f'"%s_{event.partition("_")[2]}' not in sources
    } == set()


def test_every_room_is_in_the_table_and_in_the_picture() -> None:
    folders = [folder for package in ("peer", "supernode") for folder in sorted((ROOT / package).iterdir())]
    rooms = [f"{each.parent.name}.{each.name}" for each in folders if (each / "__init__.py").is_file()]
    table = (ROOT / "docs/architecture.md").read_text()
    picture = (ROOT / "docs/pictures/architecture.svg").read_text()
    assert [room for room in rooms if f"| `{room}` |" not in table] == []
    # The operator's program, and what it does to clients, is neither of the two services.
    assert [room for room in rooms if f">{room}<" not in picture] == ["peer.cli", "peer.doctor", "peer.setup"]


def test_the_picture_is_what_its_script_draws() -> None:
    pictures = ROOT / "docs/pictures"
    script = runpy.run_path(str(pictures / "architecture.py"))
    assert script["picture"]() == (pictures / "architecture.svg").read_text()


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = _LINK.findall((folder / "README.md").read_text())
    assert sorted(listed) == sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")


def test_every_class_in_the_glossary_exists() -> None:
    sources = product_sources()
    named = {name for name in _CODE.findall((ROOT / "docs" / "glossary.md").read_text()) if name.isidentifier()}
    assert {name for name in named if name[0].isupper() and not re.search(rf"^class {name}\b", sources, re.M)} == set()


def test_every_document_is_in_the_readme_s_list() -> None:
    listed = _LINK.findall((ROOT / "README.md").read_text().partition("## Documents")[2])
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"docs/{path.name}" not in listed] == []
