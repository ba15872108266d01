"""Draws docs/pictures/architecture.svg: `python docs/pictures/architecture.py`. No dependency; edit the lists below."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Box(NamedTuple):
    """A room; the second line says what it does."""

    name: str
    does: str
    left: int
    top: int
    width: int = 190
    pure: bool = False


class Arrow(NamedTuple):
    """A line through these points, with a word at a place."""

    points: tuple[tuple[int, int], ...]
    word: str = ""
    at: tuple[int, int] = (0, 0)
    both: bool = True


WIDTH, HEIGHT = 1340, 836
BOX_HEIGHT = 46
FRAMES = (("node: layercast-peer", 180, 84, 460, 712), ("supernode: layercast-supernode", 836, 84, 484, 712))
BOXES = (
    Box("client", "docker, containerd, ...", 8, 130, 150),
    Box("origin", "registry or directory", 645, 10, 180),
    Box("other nodes", "the same program", 665, 452, 145),
    Box("peer.proxy", "mirror, streams", 200, 130),
    Box("peer.registry", "reads origins", 430, 130),
    Box("peer.node", "driver, session, workers, live blobs", 200, 240, 420),
    Box("peer.downloader", "what to do for each blob", 200, 350, pure=True),
    Box("peer.transport", "pieces over HTTP", 430, 350),
    Box("peer.torrent", "loaded on demand", 200, 460),
    Box("peer.store", "files, hashes, digests", 430, 460),
    Box("peer.permission", "who may read private blobs", 200, 570),
    Box("peer.membership", "its certificate, dials by TLS", 430, 570),
    Box("supernode.origin", "fetches each blob once", 860, 130, 200),
    Box("supernode.state", "what outlives a restart", 1100, 130, 200),
    Box("supernode.session", "one WebSocket a peer", 860, 240, 200),
    Box("supernode.control", "messages, admission, members", 1100, 240, 200),
    Box("supernode.seed", "its own store: peer zero", 860, 350, 200),
    Box("supernode.scheduler", "who gets what from whom", 1100, 350, 200, pure=True),
    Box("supernode.torrent", "tracker, loaded on demand", 860, 460, 200),
    Box("supernode.event_log", "record and replay", 1100, 460, 200),
    Box("supernode.api", "its port: who may ask what", 860, 570, 200),
    Box("supernode.membership", "authority, tokens, members", 1100, 570, 200),
    Box("supernode.jobs", "preheats: images before clients", 860, 660, 200),
    Box("supernode.console", "what operators see", 1100, 660, 200),
    Box("supernode.registry_events", "what registries tell of pushes", 860, 730, 200),
)
ARROWS = (
    Arrow(((158, 153), (200, 153)), "/v2/", (179, 147)),
    Arrow(((295, 176), (295, 240)), "open, wait", (332, 212)),
    Arrow(((525, 176), (525, 240))),
    Arrow(((525, 130), (525, 33), (645, 33)), "GET", (585, 27), both=False),
    Arrow(((960, 130), (960, 33), (825, 33)), "GET, each byte once", (895, 27), both=False),
    Arrow(((295, 286), (295, 350)), "events, commands", (362, 322)),
    Arrow(((525, 286), (525, 350))),
    Arrow(((525, 396), (525, 460))),
    Arrow(((390, 483), (430, 483))),
    Arrow(((620, 263), (860, 263)), "session: messages, by TLS", (740, 256)),
    Arrow(((620, 373), (860, 373)), "pieces", (740, 366)),
    Arrow(((580, 396), (580, 430), (737, 430), (737, 452)), "pieces", (665, 424)),
    Arrow(((860, 153), (848, 153), (848, 360), (860, 360)), both=False),
    Arrow(((1060, 263), (1100, 263))),
    Arrow(((1060, 360), (1125, 286))),
    Arrow(((1200, 286), (1200, 350)), "events, commands", (1258, 322)),
    Arrow(((1200, 240), (1200, 176))),
    Arrow(((620, 593), (860, 593)), "join: a token for a certificate", (740, 586)),
    Arrow(((620, 580), (630, 580), (630, 275), (620, 275)), "certificate", (668, 540), both=False),
    Arrow(((200, 593), (190, 593), (190, 165), (200, 165))),
    Arrow(((1060, 593), (1100, 593))),
    Arrow(((960, 616), (960, 660))),
    Arrow(((1060, 610), (1110, 660))),
)


def box(one: Box) -> str:
    fill = "#fff3d6" if one.pure else "#ffffff"
    middle = one.left + one.width // 2
    return (
        f'<rect x="{one.left}" y="{one.top}" width="{one.width}" height="{BOX_HEIGHT}" rx="5" fill="{fill}" '
        'stroke="#444"/>'
        f'<text x="{middle}" y="{one.top + 20}" font-weight="bold">{one.name}</text>'
        f'<text x="{middle}" y="{one.top + 37}" fill="#555" font-size="12">{one.does}</text>'
    )


def arrow(one: Arrow) -> str:
    start = ' marker-start="url(#head)"' if one.both else ""
    points = " ".join(f"{x},{y}" for x, y in one.points)
    x, y = one.at
    word = f'<text x="{x}" y="{y}" font-size="12" fill="#246">{one.word}</text>' if one.word else ""
    return (
        f'<polyline points="{points}" fill="none" stroke="#246" stroke-width="1.5" marker-end="url(#head)"{start}/>'
        f"{word}"
    )


def frame(name: str, left: int, top: int, width: int, height: int) -> str:
    return (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="8" fill="#f2f5f9" stroke="#9ab"/>'
        f'<text x="{left + 12}" y="{top + 24}" text-anchor="start" font-size="17" fill="#345">{name}</text>'
    )


def picture() -> str:
    """The whole file."""
    parts = [frame(*one) for one in FRAMES] + [arrow(one) for one in ARROWS] + [box(one) for one in BOXES]
    note = "yellow: pure; the time is given, no I/O"
    note = f'<text x="{WIDTH // 2}" y="{HEIGHT - 10}" font-size="12" fill="#555">{note}</text>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            'font-size="14" text-anchor="middle">',
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" fill="#246"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            *parts,
            note,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture())
