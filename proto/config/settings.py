"""Configuration in layers: defaults, then a TOML file, then the environment, then flags; the last one wins.

A settings class declares each option once, as a field made by option(), which names its flag, its environment variable
and its TOML key. Every value knows where it came from (`--print-config`), and a wrong one is refused with its key, its
value and what would be right.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast

from proto import VERSION
from proto.config.values import parse_bool
from proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

ENVIRONMENT_PREFIX: Final = "LAYERCAST_"
# A field's name ends with its unit; the option's does not, since its value may have one.
_UNITS: Final = ("_bytes_s", "_bytes", "_s")
_OPTION: Final = "option"
_TABLES: Final = "_tables"
# Characters of a wrong value that are repeated.
_SHOWN_MAX: Final = 200


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What load() makes; derive from it, with an option() a field.

    `upstream_tables`: the `[upstream."HOST"]` tables of the file as they stand there; a derived class may have other
    such fields, each for sections of its own. `warnings` has a line for each setting that no longer has an effect, to
    be logged.
    """

    upstream_tables: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


S = TypeVar("S", bound=Settings)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """One setting. `field` is its name in the settings class, `name` its name everywhere else."""

    field: str
    name: str
    parse: Callable[[str], object]
    default: object
    help: str
    multiple: bool
    reloadable: bool
    metavar: str
    secret: bool

    @property
    def flag(self) -> str:
        return _flag_of(self.name)

    @property
    def environment(self) -> str:
        return _environment_of(self.name)


def option(
    parse: Callable[[str], object],
    default: object,
    help: str,
    *,
    multiple: bool = False,
    reloadable: bool = False,
    metavar: str = "",
    secret: bool = False,
) -> Any:  # as dataclasses.field(): the annotation beside it has the type
    """A field that is an option. `parse` takes the text and raises ValueError saying what would be right.

    A `multiple` option is a tuple: its flag may be repeated, its environment variable is separated by commas, its TOML
    value is an array. A `reloadable` one may change while the program runs. A `secret` one is shown nowhere, not
    in an error either. `help` names the unit and the reason of the default.
    """
    said = {
        "parse": parse,
        "help": help,
        "multiple": multiple,
        "reloadable": reloadable,
        "metavar": metavar,
        "secret": secret,
    }
    return field(default=default, metadata={_OPTION: said})


def options_of(kind: type[Settings]) -> list[Option]:
    """The class's own first, then those of its base."""
    fields = [each for each in dataclasses.fields(kind) if _OPTION in each.metadata]
    fields.sort(key=lambda each: each.name not in kind.__annotations__)
    return [
        Option(field=each.name, name=_without_unit(each.name), default=each.default, **each.metadata[_OPTION])
        for each in fields
    ]


def reloaded(before: S, after: S) -> S:
    """The settings before, with those of `after` that may change while the program runs."""
    tables = [f"{name}{_TABLES}" for name in _section_names(type(before))]
    fields = [*tables, *(each.field for each in options_of(type(before)) if each.reloadable)]
    return dataclasses.replace(before, **{name: getattr(after, name) for name in fields})


def _without_unit(name: str) -> str:
    for unit in _UNITS:
        if name.endswith(unit):
            return name.removesuffix(unit)
    return name


def _flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def _environment_of(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def load(
    program: str,
    summary: str,
    kind: type[S],
    argv: Sequence[str],
    environ: Mapping[str, str],
    build: str = "",
    removed: Mapping[str, str] | None = None,
) -> S:
    """Read all layers. Raises ConfigError; exits for --help, --version and --print-config.

    `build`: what --version says beside the version. `removed`: options of earlier releases by name, each with what
    became of it; one that is still set is a warning, and the service starts.
    """
    options, removed = options_of(kind), removed or {}
    arguments = _parser(program, summary, options, build, removed).parse_args(argv)
    path = arguments.config or environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    table = _read_toml(Path(path)) if path else {}
    sections = {name: _sections(name, table.pop(name, {})) for name in _section_names(kind)}
    warnings = tuple(
        f"{where}: {removed[name]}; delete it"
        for name, where in _given(removed, table, path or "", environ, vars(arguments))
    )
    known = {option.name for option in options}
    allowed = [*sorted(known), *(f"[{name}.NAME]" for name in sections)]
    for key in table.keys() - removed.keys():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; known keys: {', '.join(allowed)}")
    found = [_resolve(option, table, path or "", environ, getattr(arguments, option.name)) for option in options]
    if arguments.print_config:
        _print_config(options, found, sections)
        raise SystemExit(0)
    values: dict[str, Any] = {option.field: value for option, (value, _) in zip(options, found, strict=True)}
    tables: dict[str, Any] = {f"{name}{_TABLES}": found for name, found in sections.items()}
    return kind(**values, **tables, warnings=warnings)


def argument_type(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A parser of values as argparse wants it: with its own message for what would be right."""

    def parse_argument(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None

    return parse_argument


class OneLineParser(argparse.ArgumentParser):
    """Refuses in one line, as everything else here; argparse would print its whole usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists every flag")


def _parser(
    program: str, summary: str, options: Sequence[Option], build: str, removed: Iterable[str]
) -> argparse.ArgumentParser:
    parser = OneLineParser(
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
            # A switch needs no word.
            nargs="?" if option.parse is parse_bool else None,
            const="true" if option.parse is parse_bool else None,
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
    """Which of these names any layer still sets, and where."""
    for name in names:
        if flags[name] is not None:
            yield name, _flag_of(name)
        if _environment_of(name) in environ:
            yield name, _environment_of(name)
        if name in table:
            yield name, f"{path}: {name}"


def default_data_dir() -> Path:
    """The default folder of both programs: /var/lib/layercast for root, else the user's data folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/layercast")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "layercast"


def _read_toml(path: Path) -> dict[str, object]:
    import tomllib  # most programs are given no file

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--config {path}: not TOML: {error}") from None


def _section_names(kind: type[Settings]) -> list[str]:
    """What is configured by sections of a name each: the class has a field `upstream_tables`, say."""
    return [each.name.removesuffix(_TABLES) for each in dataclasses.fields(kind) if each.name.endswith(_TABLES)]


def _sections(name: str, raw: object) -> dict[str, Mapping[str, object]]:
    if not isinstance(raw, dict) or not all(isinstance(table, dict) for table in raw.values()):
        raise ConfigError(f'{name}: expected sections such as [{name}."registry.example.com"]')
    return dict(raw)


def _resolve(
    option: Option, table: Mapping[str, object], path: str, environ: Mapping[str, str], flag: object
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


def _toml_texts(option: Option, raw: object, path: str) -> list[str]:
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


def _parse(option: Option, texts: list[str], where: str) -> object:
    parsed = []
    for text in texts:
        try:
            parsed.append(option.parse(text))
        except ValueError as error:
            shown = "" if option.secret else f"{text[:_SHOWN_MAX]!r}: "
            raise ConfigError(f"{where}: {shown}{error}") from None
    return tuple(parsed) if option.multiple else parsed[0]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(item) for item in value) or "(none)"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "(none)" if value is None else str(value)


def _print_config(
    options: Sequence[Option],
    found: Sequence[tuple[object, str]],
    sections: Mapping[str, Mapping[str, Mapping[str, object]]],
) -> None:
    width = max(len(option.name) for option in options)
    for option, (value, origin) in zip(options, found, strict=True):
        shown = "(secret)" if option.secret and value is not None else _shown(value)
        sys.stdout.write(f"{option.name:<{width}} = {shown}  # {origin}\n")
    for section, tables in sections.items():
        for name, table in tables.items():
            sys.stdout.write(f'{section}."{name}"  # {", ".join(sorted(table))}\n')
