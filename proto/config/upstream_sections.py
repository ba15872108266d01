"""The `[upstream."HOST"]` sections of a configuration file, checked and made UpstreamConfig. No file is read here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from proto.config.values import parse_path, parse_url
from proto.errors import ConfigError, NameInvalid
from proto.oci.upstreams import UpstreamConfig, normalise_authority, normalise_upstream, upstream_from_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Places = Mapping[str, Callable[[str], None]]

_TEXT_KEYS: Final = ("url", "ca_file", "client_cert", "client_key", "egress_proxy", "credentials")
_CREDENTIALS: Final = re.compile(r"docker-config|helper:[A-Za-z0-9][A-Za-z0-9._-]*|file:.+")
_KEYS: Final = (*_TEXT_KEYS, "redirect_hosts", "shared")


def upstreams_of(tables: Mapping[str, Mapping[str, object]], places: Places) -> list[UpstreamConfig]:
    """One UpstreamConfig a section. Raises ConfigError naming section, key, value and what would be right.

    `places` has the keys by which a section says that its upstream is no registry, and what is wrong with a value: a
    function that raises ValueError.
    """
    return [_upstream(host, table, places) for host, table in tables.items()]


def _upstream(name: str, table: Mapping[str, object], places: Places) -> UpstreamConfig:
    section = f'[upstream."{name}"]'
    try:
        host = normalise_upstream(name)
    except NameInvalid:
        raise ConfigError(f"{section}: HOST or HOST:PORT expected") from None
    for key in table:
        if key not in (*_KEYS, *places):
            raise ConfigError(f"{section}: unknown key {key!r}; known keys: {', '.join((*_KEYS, *places))}")
    for kind in places:
        if kind in table:
            return _elsewhere(section, host, kind, table, places[kind])
    texts = {key: _text(section, key, table[key]) for key in _TEXT_KEYS if key in table}
    url = _url(section, "url", texts["url"]) if "url" in texts else upstream_from_url(f"https://{host}").url
    upstream_from_url(url)
    if ("client_cert" in texts) != ("client_key" in texts):
        raise ConfigError(f"{section}: client_cert and client_key go together")
    shared = table.get("shared", False)
    if not isinstance(shared, bool):
        raise ConfigError(f"{section}: shared = {shared!r}: expected true or false")
    return UpstreamConfig(
        host,
        url,
        configured=True,
        ca_file=_path(section, "ca_file", texts),
        client_cert=_path(section, "client_cert", texts),
        client_key=_path(section, "client_key", texts),
        egress_proxy=_proxy(section, texts.get("egress_proxy")),
        redirect_hosts=_hosts(section, table.get("redirect_hosts", [])),
        shared=shared,
        credentials=_credentials(section, texts.get("credentials", "")),
    )


def _elsewhere(
    section: str, host: str, kind: str, table: Mapping[str, object], check: Callable[[str], None]
) -> UpstreamConfig:
    """An upstream that is no registry."""
    if len(table) > 1:
        raise ConfigError(f"{section}: {kind} goes with no other key")
    place = _text(section, kind, table[kind])
    try:
        check(place)
    except ValueError as error:
        raise ConfigError(f"{section}: {kind} = {place!r}: {error}") from None
    return UpstreamConfig(host, "", configured=True, kind=kind, place=place)


def _text(section: str, key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{section}: {key} = {value!r}: expected a string")
    return value.strip()


def _url(section: str, key: str, text: str) -> str:
    try:
        return parse_url(text)
    except ValueError as error:
        raise ConfigError(f"{section}: {key} = {text!r}: {error}") from None


def _proxy(section: str, text: str | None) -> str | None:
    """Checked, but for its user and password, which no message repeats."""
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        rest = (parts.path.strip("/"), parts.query, parts.fragment)
        if parts.scheme == "http" and parts.hostname and parts.port != 0 and not any(rest):
            return text
    except ValueError:
        pass
    raise ConfigError(f"{section}: egress_proxy: expected http://[USER:PASSWORD@]HOST[:PORT], port 3128 by default")


def _path(section: str, key: str, texts: Mapping[str, str]) -> Path | None:
    if key not in texts:
        return None
    try:
        return parse_path(texts[key])
    except ValueError as error:
        raise ConfigError(f"{section}: {key} = {texts[key]!r}: {error}") from None


def _credentials(section: str, text: str) -> str:
    if text and not _CREDENTIALS.fullmatch(text):
        # It may be the secret itself.
        raise ConfigError(f'{section}: credentials: expected "docker-config", "helper:NAME" or "file:PATH"')
    return text


def _hosts(section: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{section}: redirect_hosts = {value!r}: expected an array of HOST or HOST:PORT")
    try:
        return tuple(normalise_authority(_text(section, "redirect_hosts", item)) for item in value)
    except NameInvalid as error:
        raise ConfigError(f"{section}: redirect_hosts: {error}") from None
