"""Asks a service over HTTP as operators do: text and JSON, by checked TLS where a CA file is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peer.cli.contract import CommandError
from proto.config.settings import argument_type
from proto.config.values import parse_url
from proto.wire.join import REFUSAL_HEADER, SUPERNODE_NAME

if TYPE_CHECKING:
    import argparse

    import urllib3

DEFAULT_SUPERNODE: Final = "http://127.0.0.1:65000"
_CONNECT_S: Final = 2.0
_READ_S: Final = 5.0


def add_supernode_arguments(parser: argparse.ArgumentParser) -> None:
    """How a supernode is reached, and who asks."""
    parser.add_argument(
        "--supernode", type=argument_type(parse_url), metavar="URL", help=f"a supernode [default: {DEFAULT_SUPERNODE}]"
    )
    parser.add_argument("--ca-file", metavar="FILE", help="to ask a supernode by https: its ca/ca.pem")
    parser.add_argument("--token-file", metavar="FILE", help="and its ca/operator.token")


def token_of(file: str | None) -> str:
    """Raises CommandError."""
    try:
        return Path(file).read_text().strip() if file else ""
    except OSError as error:
        raise CommandError(f"--token-file {file}: {error.strerror}") from None


def pool(url: str, ca_file: str | None, token: str) -> urllib3.PoolManager:
    """Connections to one service. The token goes by checked TLS alone."""
    import urllib3

    name = SUPERNODE_NAME if ca_file else None
    headers = {"Authorization": f"Bearer {token}"} if token and ca_file and url.startswith("https:") else {}
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=_CONNECT_S, read=_READ_S),
        retries=False,
        headers=headers,
        ca_certs=ca_file,
        server_hostname=name,
        assert_hostname=name,
    )


class SupernodeReader:
    """Of one supernode, as arguments name it; close() it in the end."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.url: str = arguments.supernode or DEFAULT_SUPERNODE
        self._pool = pool(self.url, arguments.ca_file, token_of(arguments.token_file))

    def json(self, path: str) -> dict[str, Any]:
        """Raises CommandError."""
        try:
            found = json.loads(self.text(path))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise CommandError(f"supernode {self.url}: answers what no Layercast service would")
        return found

    def text(self, path: str) -> str:
        """Raises CommandError."""
        import urllib3

        try:
            answer = self._pool.request("GET", f"{self.url}{path}")
        except urllib3.exceptions.HTTPError as error:
            raise CommandError(f"supernode {self.url}: does not answer ({type(error).__name__})") from None
        if answer.status != 200:
            said = answer.headers.get(REFUSAL_HEADER, "")
            raise CommandError(f"supernode {self.url}: answers {answer.status} {said}".strip())
        return answer.data.decode(errors="replace")

    def change(self, method: str, path: str, document: object = None) -> dict[str, Any]:
        """Ask for a change, with a JSON document; what is answered. Raises CommandError with the supernode's words."""
        import urllib3

        body = None if document is None else json.dumps(document).encode()
        headers = {**self._pool.headers, **({"Content-Type": "application/json"} if body is not None else {})}
        try:
            answer = self._pool.request(method, f"{self.url}{path}", body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise CommandError(f"supernode {self.url}: does not answer ({type(error).__name__})") from None
        try:
            found = json.loads(answer.data)
        except (ValueError, RecursionError):
            found = None
        if answer.status in (200, 201, 202) and isinstance(found, dict):
            return found
        said = found.get("error", "") if isinstance(found, dict) else answer.headers.get(REFUSAL_HEADER, "")
        raise CommandError(f"supernode {self.url}: {said or f'answers {answer.status}'}")

    def close(self) -> None:
        """Close its connections."""
        self._pool.clear()
