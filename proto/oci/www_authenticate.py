"""WWW-Authenticate: what a registry or its token service asks of a client (RFC 9110 section 11.6.1).

Parsing and printing only. A header line may hold several challenges, and commas also stand inside quotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?=,|$)')
_SCHEME = re.compile(rf"({_TOKEN})(?:\s+|(?=,|$))")
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*\s*(?=,|$)")
# Nothing a registry says in a challenge is longer; what is, gets no parsing.
_HEADER_LENGTH_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge; `scheme` and the parameters' names are lower-case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str | None:
        """A parameter: `realm` (for Bearer, the URL of the token service), `service`, `scope`, `error`."""
        return self.parameters.get(name)

    def __str__(self) -> str:
        quoted = (f'{name}="{_escape(value)}"' for name, value in self.parameters.items())
        return f"{self.scheme.capitalize()} {','.join(quoted)}".rstrip()


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read all WWW-Authenticate lines of a response, in order; what is malformed is left out."""
    found: list[Challenge] = []
    for header in headers:
        if len(header) <= _HEADER_LENGTH_MAX:
            found += _parse_line(header)
    return found


def bearer_challenge(headers: Iterable[str]) -> Challenge | None:
    """The first Bearer challenge that names a realm, or None."""
    return next((c for c in parse_challenges(headers) if c.scheme == "bearer" and c.get("realm")), None)


def insufficient_scope(challenge: Challenge, repository: str, actions: str = "pull") -> Challenge:
    """The same Bearer challenge, telling a client that its token must be for these actions in this repository.

    Where it is more than a pull, the registry's own scope is better, if it has one for that repository.
    """
    scope = challenge.get("scope") or ""
    if actions == "pull" or not scope.startswith(f"repository:{repository}:"):
        scope = f"repository:{repository}:{actions}"
    parameters = {**challenge.parameters, "scope": scope, "error": "insufficient_scope"}
    return Challenge(challenge.scheme, parameters)


def _parse_line(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    position = 0
    while position < len(text):
        if text[position] in ", \t":
            position += 1
            continue
        parameter = _PARAMETER.match(text, position)
        if parameter is not None and found:
            value = parameter[3] if parameter[2] is None else re.sub(r"\\(.)", r"\1", parameter[2])
            found[-1].parameters.setdefault(parameter[1].lower(), value)
            position = parameter.end()
            continue
        scheme = _SCHEME.match(text, position)
        if scheme is None or parameter is not None:
            return found
        found.append(Challenge(scheme[1].lower()))
        position = scheme.end()
        token68 = _TOKEN68.match(text, position)
        if token68 is not None and _PARAMETER.match(text, position) is None:
            position = token68.end()
    return found


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
