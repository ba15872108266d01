"""Which pushed tags are brought to nodes, and to which: the `[preheat."NAME"]` sections of the configuration. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from proto.errors import ConfigError, NameInvalid
from proto.oci.images import parse_platform
from proto.oci.upstreams import normalise_upstream
from supernode.jobs import targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RULES_MAX: Final = 200
PATTERNS_MAX: Final = 100
PATTERN_LENGTH_MAX: Final = 256
_KEYS: Final = ("repositories", "tags", "platforms", "to")
_WILDCARDS: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Rule:
    """Tags of these repositories, `REGISTRY/NAME`, go to these nodes (jobs.targets). Of both the names may be patterns:
    `*` is any characters, slashes too. No platform: all of them.
    """

    name: str
    repositories: tuple[str, ...]
    tags: tuple[str, ...] = ("*",)
    platforms: tuple[str, ...] = ()
    to: str = "all"

    def has(self, repository: str) -> bool:
        """Whether tags of it are meant."""
        return any(fnmatchcase(repository, pattern) for pattern in self.repositories)

    def has_tag(self, tag: str) -> bool:
        """Whether this tag of its repositories is meant."""
        return any(fnmatchcase(tag, pattern) for pattern in self.tags)


def rule_of(rules: Iterable[Rule], repository: str, tag: str) -> Rule | None:
    """The first that means it."""
    return next((rule for rule in rules if rule.has(repository) and rule.has_tag(tag)), None)


def is_pattern(repository: str) -> bool:
    """It may mean several."""
    return not _WILDCARDS.isdisjoint(repository)


def rules_of(tables: Mapping[str, Mapping[str, object]]) -> tuple[Rule, ...]:
    """One a section, in their order. Raises ConfigError naming section, key, value and what would be right."""
    if len(tables) > RULES_MAX:
        raise ConfigError(f"preheat: more than {RULES_MAX} sections")
    return tuple(_rule(name, table) for name, table in tables.items())


def _rule(name: str, table: Mapping[str, object]) -> Rule:
    section = f'[preheat."{name}"]'
    for key in table:
        if key not in _KEYS:
            raise ConfigError(f"{section}: unknown key {key!r}; known keys: {', '.join(_KEYS)}")
    repositories = tuple(_repository(section, text) for text in _texts(section, "repositories", table, ()))
    if not repositories:
        raise ConfigError(f'{section}: repositories: expected names such as ["harbor.example.com/team/*"]')
    to = table.get("to", "all")
    try:
        platforms = tuple(str(parse_platform(text)) for text in _texts(section, "platforms", table, ()))
        return Rule(name, repositories, _texts(section, "tags", table, ("*",)), platforms, targets.check(str(to)))
    except ValueError as error:
        raise ConfigError(f"{section}: {error}") from None


def _texts(section: str, key: str, table: Mapping[str, object], default: tuple[str, ...]) -> tuple[str, ...]:
    value = table.get(key, list(default))
    if not isinstance(value, list) or len(value) > PATTERNS_MAX or not all(map(_is_text, value)):
        raise ConfigError(f"{section}: {key} = {value!r}: expected an array of up to {PATTERNS_MAX} strings")
    return tuple(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= PATTERN_LENGTH_MAX


def _repository(section: str, text: str) -> str:
    """With the registry's name in its one spelling; that is no pattern."""
    host, slash, name = text.partition("/")
    try:
        if not slash or not name or is_pattern(host):
            raise NameInvalid("")
        return f"{normalise_upstream(host)}/{name}"
    except NameInvalid:
        raise ConfigError(
            f"{section}: repositories: {text!r}: expected REGISTRY/NAME, for example docker.io/library/*"
        ) from None
