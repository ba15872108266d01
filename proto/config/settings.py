"""Configuration in layers: defaults, a TOML file, the environment, flags, in rising order. Read in each `config` alone.

An Option is declared once and gets its flag, its environment variable and its TOML key from its name. Every value knows
where it came from (`--print-config`), and a wrong one is refused with its key, its value and what would be right.
"""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from proto import VERSION
from proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

T = TypeVar("T")

ENVIRONMENT_PREFIX = "LAYERCAST_"


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """One setting. `parse` takes the text and raises ValueError saying what would be right.

    A `multiple` option is a tuple: its flag may be repeated, its environment variable is separated by commas,
    its TOML value is an array. `help` names the unit and the reason of the default.
    """

    name: str
    parse: Callable[[str], T]
    default: T | tuple[T, ...] | None
    help: str
    multiple: bool = False
    reloadable: bool = False
    metavar: str = ""

    @property
    def flag(self) -> str:
        return _flag_of(self.name)

    @property
    def environment(self) -> str:
        return _environment_of(self.name)


def _flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def _environment_of(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force, and the `[upstream."HOST"]` tables of the file as they stand there.

    `warnings` has a line for each setting that was given and does nothing any more, to be logged.
    """

    values: Mapping[str, object]
    origins: Mapping[str, str]
    upstream_tables: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def get(self, option: Option[T]) -> T:
        """The value of an option that has a default or was given."""
        return cast("T", self.values[option.name])

    def optional(self, option: Option[T]) -> T | None:
        """The value, or None."""
        return cast("T | None", self.values[option.name])

    def many(self, option: Option[T]) -> tuple[T, ...]:
        """The values of a multiple option."""
        return cast("tuple[T, ...]", self.values[option.name])


def load(
    program: str,
    summary: str,
    options: Sequence[Option[Any]],  # Any: options of different types stand in one list
    argv: Sequence[str],
    environ: Mapping[str, str],
    build: str = "",
    removed: Mapping[str, str] | None = None,
) -> Loaded:
    """Read all layers. Raises ConfigError; exits for --help, --version and --print-config.

    `build`: what --version says beside the version. `removed`: options of earlier releases by name, each with what
    became of it; who still gives one gets a warning, not a service that does not start.
    """
    removed = removed or {}
    arguments = _parser(program, summary, options, build, removed).parse_args(argv)
    path = arguments.config or environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    table = _read_toml(Path(path)) if path else {}
    upstream_tables = _upstream_tables(table.pop("upstream", {}))
    warnings = tuple(
        f"{where}: {removed[name]}; delete it"
        for name, where in _given(removed, table, path or "", environ, vars(arguments))
    )
    known = {option.name for option in options}
    for key in table.keys() - removed.keys():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; known keys: {', '.join(sorted(known))}, [upstream.HOST]")
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for option in options:
        value, origin = _resolve(option, table, path or "", environ, getattr(arguments, option.name))
        values[option.name], origins[option.name] = value, origin
    loaded = Loaded(values, origins, upstream_tables, warnings)
    if arguments.print_config:
        _print_config(loaded)
        raise SystemExit(0)
    return loaded


class _Parser(argparse.ArgumentParser):
    """Refuses in one line, as everything else here; argparse would print its whole usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists every flag")


def _parser(
    program: str, summary: str, options: Sequence[Option[Any]], build: str, removed: Iterable[str]
) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        description=summary,
        epilog="Each option is also a key of the TOML file (names with _ for -) and an environment variable "
        f"{ENVIRONMENT_PREFIX}NAME. Flags win over the environment, the environment over the file.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with the same options")
    parser.add_argument("--print-config", action="store_true", help="print every setting and where it came from")
    parser.add_argument("--version", action="version", version=f"{program} {VERSION} {build}".rstrip())
    for option in options:
        default = "" if option.default in (None, ()) else f" [default: {_shown(option.default)}]"
        parser.add_argument(
            option.flag,
            dest=option.name,
            action="append" if option.multiple else "store",
            metavar=option.metavar or option.name.rsplit("_", 1)[-1].upper(),
            help=(option.help + default).replace("%", "%%"),
        )
    for name in removed:
        parser.add_argument(_flag_of(name), dest=name, help=argparse.SUPPRESS)
    return parser


def _given(
    names: Iterable[str],
    table: Mapping[str, object],
    path: str,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
) -> Iterator[tuple[str, str]]:
    """Those of the names that any layer sets, with where: for options that are gone."""
    for name in names:
        if flags[name] is not None:
            yield name, _flag_of(name)
        if _environment_of(name) in environ:
            yield name, _environment_of(name)
        if name in table:
            yield name, f"{path}: {name}"


def default_data_dir() -> Path:
    """Where the programs keep their folders unless told: /var/lib/layercast for root, else the user's data folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/layercast")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "layercast"


def _read_toml(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not TOML: {error}") from None


def _upstream_tables(raw: object) -> dict[str, Mapping[str, object]]:
    if not isinstance(raw, dict) or not all(isinstance(table, dict) for table in raw.values()):
        raise ConfigError('upstream: expected sections such as [upstream."registry.example.com"]')
    return dict(raw)


def _resolve(
    option: Option[Any], table: Mapping[str, object], path: str, environ: Mapping[str, str], flag: object
) -> tuple[object, str]:
    if flag is not None:
        texts = cast("list[str]", flag) if option.multiple else [cast("str", flag)]
        return _parse(option, texts, option.flag), f"flag {option.flag}"
    if option.environment in environ:
        text = environ[option.environment]
        texts = [part.strip() for part in text.split(",") if part.strip()] if option.multiple else [text]
        return _parse(option, texts, option.environment), f"environment {option.environment}"
    if option.name in table:
        return _parse(option, _toml_texts(option, table[option.name], path), f"{path}: {option.name}"), f"file {path}"
    return option.default, "default"


def _toml_texts(option: Option[Any], raw: object, path: str) -> list[str]:
    items = raw if option.multiple and isinstance(raw, list) else [raw]
    if option.multiple and not isinstance(raw, list):
        raise ConfigError(f"{path}: {option.name} = {raw!r}: expected an array of strings")
    texts = []
    for item in items:
        if isinstance(item, bool):
            texts.append("true" if item else "false")
        elif isinstance(item, str | int | float):
            texts.append(str(item))
        else:
            raise ConfigError(f"{path}: {option.name} = {raw!r}: expected a string, a number or true/false")
    return texts


def _parse(option: Option[Any], texts: list[str], where: str) -> object:
    parsed = []
    for text in texts:
        try:
            parsed.append(option.parse(text))
        except ValueError as error:
            raise ConfigError(f"{where}: {text!r}: {error}") from None
    return tuple(parsed) if option.multiple else parsed[0]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(item) for item in value) or "(none)"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "(none)" if value is None else str(value)


def _print_config(loaded: Loaded) -> None:
    width = max((len(name) for name in loaded.values), default=0)
    for name, value in loaded.values.items():
        sys.stdout.write(f"{name:<{width}} = {_shown(value)}  # {loaded.origins[name]}\n")
    for host, table in loaded.upstream_tables.items():
        keys = ", ".join(sorted(table))
        sys.stdout.write(f'upstream."{host}"  # {keys}\n')
