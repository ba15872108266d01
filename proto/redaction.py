"""Texts that leave a machine, or are shown, without what must stay: passwords, tokens, keys, queries of URLs. Pure.

It goes by how secrets are written: it masks more than it must, and never adds or takes a line. It does not make a text
safe by itself: who knows a secret hands it over as `known`.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK: Final = "***"
# Names of what is secret, also within longer ones; not those that end as names of files and times do.
_NAME: Final = (
    r"(?:passw(?:or)?d|passphrase|secret|token|auth|authorization|credentials?|cookie|bearer|"
    r"api[-_]?key|access[-_]?key|private[-_]?key|join)s?"
)
_NOT_SECRET: Final = r"(?![\w.-]*[-_](?:file|path|folder|dir|url|uri|type|ttl|expire\w*|total)\b)"
_VALUE: Final = (
    r'"(?:[^"\\\n]|\\.)*"|'
    r"'(?:[^'\n]|'')*'|"
    # Up to a length: many that are never closed would take the square of the time. Items are masked by _LIST.
    r"\[[^\]\n]{0,1000}\]|"
    # As YAML has it: up to the end of the line, or of what is in braces.
    r"(?<=[:=]\s)[^\s\[{|>\"'][^\n}]*|"
    r"[^\s\[{|>\"'][^\s,}]*"
)
# A name's beginning stays either way: to look for it from each character would take the square of a long word's time.
_NAMED: Final = re.compile(rf"(?i)({_NAME}[\"']?\s*[:=]\s?[ \t]*)({_VALUE})")
# A list over several lines: all up to the first bracket that stands in no quotes.
_LIST: Final = re.compile(rf"(?i)({_NAME}[\"']?\s*[:=]\s*\[)((?:[^\[\]\"']|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*')*)")
_ITEM: Final = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[^\s,\"'{}]+")
# YAML: the value stands below its name.
_BELOW: Final = re.compile(
    rf"(?im)^([ \t]*)((?:- )?[\"']?{_NOT_SECRET}[\w.-]*?{_NAME}[\"']?[ \t]*:[ \t]*[|>]?[-+\d]*[ \t]*\r?\n)"
    r"((?:\1[ \t]+(?![\w\"'.-]+[\"']?:(?:\s|$))\S[^\n]*(?:\n|$))+)"
)
_USER_OF_URL: Final = re.compile(r"(://)[^\s\"'/]*@")
_USER: Final = re.compile(r"(?<![\w/.:+-])[\w.+-]+:[^\s\"'@/]+@(?!sha(?:256|512):)(?=[\w\[])")
_QUERY: Final = re.compile(r"(\b[a-z][a-z+.-]{0,20}://[^\s\"'?]+\?)[^\s\"']+", re.IGNORECASE)
_PATH_QUERY: Final = re.compile(r"((?<![\w./:%@~+?-])[\w./:%@~+-]*/[\w./:%@~+-]*\?)[\w.%~+-]+=[^\s\"']*")
_SCHEME: Final = re.compile(r"\b(basic|bearer)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
_WEB_TOKEN: Final = re.compile(r"\beyJ[\w-]{6,}(?:\.[\w-]*){1,2}")
_JOIN_TOKEN: Final = re.compile(r"\blc1\.[\w-]+\.[\w-]+\.[\w-]+")
_KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
# What is shorter stands in any text.
_KNOWN_CHARACTERS_MIN: Final = 4


def redacted(text: str, known: Iterable[str] = ()) -> str:
    """The text, as many lines, without what looks secret, and without `known` in any form in which it is written."""
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= _KNOWN_CHARACTERS_MIN:
            for form in _forms(secret):
                text = text.replace(form, MASK)
    text = _KEY.sub(lambda found: _lines_masked(found[0]), text)
    text = _LIST.sub(lambda found: found[1] + _ITEM.sub(f'"{MASK}"', found[2]), text)
    text = _BELOW.sub(lambda found: found[1] + found[2] + _lines_masked(found[3], found[1] + "  "), text)
    text = _QUERY.sub(rf"\1{MASK}", text)
    text = _PATH_QUERY.sub(rf"\1{MASK}", text)
    text = _USER_OF_URL.sub(rf"\1{MASK}@", text)
    text = _USER.sub(f"{MASK}@", text)
    text = _SCHEME.sub(rf"\1 {MASK}", text)
    text = _WEB_TOKEN.sub(MASK, text)
    text = _JOIN_TOKEN.sub(MASK, text)
    return _NAMED.sub(rf"\1{MASK}", text)


def _forms(secret: str) -> set[str]:
    """As it is, as URLs and JSON have it, and in base64."""
    encoded = base64.b64encode(secret.encode()).decode()
    return {secret, quote(secret, safe=""), secret.replace("\\", "\\\\").replace('"', '\\"'), encoded}


def _lines_masked(text: str, lead: str = "") -> str:
    ended = text.endswith("\n")
    count = text.count("\n") + (0 if ended else 1)
    return "\n".join([f"{lead}{MASK}"] * count) + ("\n" if ended else "")
