"""CONNECT and whole URLs at a running mirror: what is answered here, what is carried on, what is refused and told."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import ssl
import threading
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.proxy import forward_proxy, interception
from peer.proxy.forward_policy import ForwardPolicy, intercepted_hosts
from peer.proxy.forward_proxy import ForwardParts
from peer.proxy.node_authority import NodeAuthority
from peer.proxy.tunnel import Tunnels
from peer.registry.tunnel_ends import open_tunnel_end
from proto.ids import Digest
from proto.oci.routes import HOP_HEADER
from proto.oci.upstreams import UpstreamConfig
from tests.support.sockets import receive
from tests.unit.peer.proxy.harness import (
    Mirror,
    Reply,
    ScriptedBlob,
    ScriptedNode,
    ScriptedOrigin,
    Seen,
    running_mirror,
    scripted_origin,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from peer.metrics import Metrics
    from peer.registry.origins import Origins

HOST = "registry.example.com"
BLOB = bytes(range(256)) * 20_000
DIGEST = Digest.of(BLOB)


@dataclass
class Setting:
    """A running mirror that is a forward proxy; `lookups` is what was resolved for tunnels."""

    mirror: Mirror
    origin: ScriptedOrigin
    parts: ForwardParts
    lookups: list[str] = field(default_factory=list)

    def connect(self, target: str, *lines: str) -> tuple[socket.socket, bytes]:
        """A connection after its CONNECT, and the head of the answer."""
        sock = self.mirror.connect()
        head = "".join(f"{line}\r\n" for line in (f"CONNECT {target} HTTP/1.1", f"Host: {target}", *lines))
        sock.sendall(f"{head}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (part := sock.recv(1)):
            answer += part
        return sock, answer

    def refusal(self, target: str, *lines: str) -> int:
        """The status of a CONNECT that is not followed."""
        sock, answer = self.connect(target, *lines)
        with sock:
            while sock.recv(4096):
                pass
        return int(answer.split()[1])

    @contextlib.contextmanager
    def inside(self, target: str = f"{HOST}:443") -> Iterator[http.client.HTTPConnection]:
        """An HTTP connection by TLS, in a tunnel to the registry."""
        sock, answer = self.connect(target)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        context = ssl.create_default_context(cafile=self.parts.authority.certificate_file)
        connection = http.client.HTTPConnection(target)
        connection.sock = context.wrap_socket(sock, server_hostname=target.rpartition(":")[0])
        with contextlib.closing(connection):
            yield connection

    def log_line(self, caplog: pytest.LogCaptureFixture) -> str:
        wait_until(lambda: "forward_refused" in caplog.text)
        return next(record.getMessage() for record in caplog.records if "forward_refused" in record.getMessage())


@contextlib.contextmanager
def setting(
    folder: Path,
    *,
    policy: ForwardPolicy | None = None,
    node: ScriptedNode | None = None,
    resolved: Mapping[str, list[str]] = MappingProxyType({}),
    limit: int = 8,
    uv: bool = True,
    answer: Callable[[Seen], Reply] = lambda _: Reply(body=b"from the origin"),
    redirect_hosts: tuple[str, ...] = (),
    push: bool = True,
) -> Iterator[Setting]:
    lookups: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        lookups.append(host)
        return list(resolved.get(host, [host]))

    made: list[ForwardParts] = []

    def parts(origins: Origins, metrics: Metrics) -> ForwardParts:
        authority = NodeAuthority(folder)
        authority.open(intercepted_hosts(origins.upstreams()))
        made.append(
            ForwardParts(
                policy or ForwardPolicy(),
                origins.upstreams,
                authority,
                Tunnels(limit, WAIT_S),
                metrics,
                own_ports=frozenset(),
                open_end=lambda *where, **how: open_tunnel_end(*where, **how, resolver=resolver),
            )
        )
        return made[0]

    with scripted_origin(answer) as origin:
        # Clients know it by a name, the operator has it asked elsewhere.
        url = f"http://{origin.authority}"
        named = UpstreamConfig(HOST, url, configured=True, redirect_hosts=redirect_hosts)
        with running_mirror(origin.upstream, named, node=node, forward=parts, uv=uv, push=push) as mirror:
            yield Setting(mirror, origin, made[0], lookups)


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """Answers one connection with what it is sent; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_S)

        def serve() -> None:
            with contextlib.suppress(OSError), server.accept()[0] as sock:
                while content := sock.recv(65536):
                    sock.sendall(content)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join(WAIT_S)


def test_the_far_end_is_closed_where_the_client_hung_up_before_its_tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hung_up(_: object) -> tuple[socket.socket, bytes]:
        raise ConnectionResetError("the client hung up before its tunnel")

    monkeypatch.setattr(forward_proxy, "_take_socket", hung_up)
    server, far = socket.socketpair()
    with server, setting(tmp_path) as running:
        running.parts.open_end = lambda *_, **__: far
        server.settimeout(WAIT_S)
        assert running.refusal("elsewhere.example.com:443") == 400
        assert server.recv(1) == b""
        assert running.parts.tunnels.open == 0


# --- tunnels that end here ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("uv", [True, False])
def test_a_blob_leaves_the_store_through_an_intercepted_tunnel(tmp_path: Path, uv: bool) -> None:
    node = ScriptedNode({DIGEST: ScriptedBlob(BLOB)})
    with setting(tmp_path, node=node, uv=uv) as running, running.inside() as connection:
        for _ in range(2):  # one connection, two requests
            connection.request("GET", f"/v2/org/app/blobs/{DIGEST}")
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, BLOB)
        assert running.origin.seen == []
        assert [source.upstream for _, source in node.asked] == [HOST, HOST]
        assert running.mirror.counted("layercast_connects_total", result="intercepted") == 1


def test_a_blob_that_its_registry_keeps_elsewhere_is_followed_and_what_wants_a_login_there_is_relayed(
    tmp_path: Path,
) -> None:
    def elsewhere(seen: Seen) -> Reply:
        return Reply(401) if "locked" in seen.target else Reply(body=BLOB)

    with scripted_origin(elsewhere) as storage:

        def answer(seen: Seen) -> Reply:
            name = "locked" if "locked" in seen.target else "signed?x=%2B"
            return Reply(307, [("Location", f"http://{storage.authority}/{name}")])

        with (
            setting(tmp_path, answer=answer, redirect_hosts=(storage.authority,)) as running,
            running.inside() as connection,
        ):
            connection.request("GET", f"/v2/org/app/blobs/{DIGEST}", headers={"Authorization": "Bearer t"})
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, BLOB)
            connection.request("GET", f"/v2/org/locked/blobs/{DIGEST}")
            response = connection.getresponse()
            assert (response.status, response.read()) == (307, b"")
            assert response.getheader("Location") == f"http://{storage.authority}/locked"
        assert {seen.target for seen in storage.seen} == {"/signed?x=%2B", "/locked"}
        assert all(seen.all("Authorization") == [] for seen in storage.seen)


def test_what_is_no_blob_is_the_registrys_to_answer_and_so_is_what_is_no_part_of_its_api(tmp_path: Path) -> None:
    targets = ["/v2/", "/v2/org/app/manifests/1.0", "/token?service=s&scope=repository:org/app:pull", "/metrics", "/"]
    with setting(tmp_path) as running, running.inside() as connection:
        for target in targets:
            connection.request("GET", target, headers={"Authorization": "Bearer t"})
            response = connection.getresponse()
            assert response.read() == b"from the origin"
        # Of a manifest the registry is asked by HEAD first.
        assert [seen.target for seen in running.origin.seen if seen.method == "GET"] == targets
        assert all(seen.all("Authorization") == ["Bearer t"] for seen in running.origin.seen)


def test_a_first_part_that_looks_like_a_host_is_a_repositorys_in_a_tunnel(tmp_path: Path) -> None:
    with setting(tmp_path) as running, running.inside() as connection:
        connection.request("GET", "/v2/quay.io/app/manifests/1.0?ns=quay.io")
        assert connection.getresponse().read() == b"from the origin"
        assert running.origin.seen[0].target == "/v2/quay.io/app/manifests/1.0"


def test_an_upload_at_a_path_that_its_registry_alone_understands_is_no_login(tmp_path: Path) -> None:
    with setting(tmp_path, push=False) as running, running.inside() as connection:
        for target, status in (("/token", 200), ("//v2/org/app/blobs/uploads/?digest=d", 403)):
            connection.request("POST", target)
            response = connection.getresponse()
            response.read()
            assert response.status == status
        assert [seen.target for seen in running.origin.seen] == ["/token"]


@pytest.mark.parametrize("host", ["other.example.com", f"{HOST}:5000", "127.0.0.1", "a b"])
def test_another_host_than_the_tunnels_is_misdirected(tmp_path: Path, host: str) -> None:
    with setting(tmp_path) as running, running.inside() as connection:
        connection.putrequest("GET", "/v2/", skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        assert connection.getresponse().status == 421
        assert running.origin.seen == []


def test_a_tunnel_is_no_way_to_further_ones_and_the_log_says_whose_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with setting(tmp_path) as running, running.inside() as connection:
        connection.sock.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert connection.sock.recv(12) == b"HTTP/1.1 421"
        assert "client=127.0.0.1 method=CONNECT" in running.log_line(caplog)


def test_a_client_that_says_nothing_in_its_tunnel_does_not_hold_up_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interception, "HANDSHAKE_S", 10 * WAIT_S)
    caplog.set_level(logging.INFO)
    with setting(tmp_path) as running:
        sock, answer = running.connect(f"{HOST}:443")
        with sock:
            assert answer.startswith(b"HTTP/1.1 200 ")
            closing = threading.Thread(target=running.parts.tunnels.close, daemon=True)
            closing.start()
            closing.join(WAIT_S)
            assert not closing.is_alive()
        assert "interception_failed" not in caplog.text


@pytest.mark.parametrize("target", ["user:secret@example.com:443", "user:secret@[::1:443"])
def test_a_password_in_a_target_is_in_no_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    caplog.set_level(logging.INFO)
    with setting(tmp_path) as running:
        assert running.refusal(target) == 400
        assert "secret" not in running.log_line(caplog)


def test_a_client_that_does_not_trust_this_node_costs_no_more_than_its_tunnel(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with setting(tmp_path, limit=1) as running:
        sock, _ = running.connect(f"{HOST}:443")
        with sock, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(sock, server_hostname=HOST)
        wait_until(lambda: "interception_failed" in caplog.text)
        wait_until(lambda: running.parts.tunnels.open == 0)
        with running.inside() as connection:
            connection.request("GET", "/v2/")
            assert connection.getresponse().status == 200


def test_a_request_that_has_been_here_is_not_followed_again(tmp_path: Path) -> None:
    with setting(tmp_path) as running:
        assert running.refusal(f"{HOST}:443", f"{HOP_HEADER}: 1") == 508
        with running.inside() as connection:
            connection.request("GET", "/v2/", headers={HOP_HEADER: "1"})
            assert connection.getresponse().status == 508


# --- tunnels that go on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uv", [True, False])
def test_a_host_that_the_operator_named_gets_every_byte(tmp_path: Path, uv: bool) -> None:
    with echo_server() as port:
        policy = ForwardPolicy(local_only=False, hosts=frozenset({f"auth.example.com:{port}"}))
        names = {"auth.example.com": ["127.0.0.1"]}
        with setting(tmp_path, policy=policy, resolved=names, uv=uv) as running:
            sock, answer = running.connect(f"auth.example.com:{port}")
            with sock:
                assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n"
                threading.Thread(target=sock.sendall, args=(BLOB,)).start()
                received = bytearray()
                while len(received) < len(BLOB):
                    received += receive(sock)
                assert received == BLOB
            wait_until(lambda: running.parts.tunnels.open == 0)
            wait_until(lambda: running.mirror.counted("layercast_connects_total", result="tunnelled") == 1)


def test_bytes_that_come_with_the_connect_are_not_lost(tmp_path: Path) -> None:
    with echo_server() as port:
        policy = ForwardPolicy(hosts=frozenset({f"127.0.0.1:{port}"}))
        with setting(tmp_path, policy=policy) as running, running.mirror.connect() as sock:
            sock.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\nearly".encode())
            received = b""
            while not received.endswith(b"early"):
                received += receive(sock)


@pytest.mark.parametrize(
    ("target", "address", "status"),
    [
        ("169.254.169.254:443", "169.254.169.254", 403),
        ("127.0.0.1:443", "127.0.0.1", 403),
        ("[::1]:443", "::1", 403),
        ("metadata.example.com:443", "169.254.169.254", 403),
        ("inside.example.com:443", "10.1.2.3", 403),
        ("127.0.0.1:22", "127.0.0.1", 403),
        ("example.com:80", "93.184.216.34", 403),
    ],
)
def test_nothing_inside_is_reached_through_it_and_the_log_says_who_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, target: str, address: str, status: int
) -> None:
    caplog.set_level(logging.INFO)
    host = target.rpartition(":")[0].strip("[]")
    with setting(tmp_path, resolved={host: [address]}) as running:
        assert running.refusal(target) == status
        line = running.log_line(caplog)
        assert f"client=127.0.0.1 method=CONNECT host={target} status={status} reason=" in line
        assert running.mirror.counted("layercast_connects_total", result="refused") == 1
        assert running.parts.tunnels.open == 0


def test_a_client_that_is_refused_again_and_again_does_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with setting(tmp_path) as running:
        for _ in range(100):
            assert running.refusal("example.com:80") == 403
        assert running.mirror.counted("layercast_connects_total", result="refused") == 100
    assert caplog.text.count("forward_refused") <= 70


def test_a_host_that_does_not_answer_is_a_bad_gateway(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    policy = ForwardPolicy(hosts=frozenset({f"127.0.0.1:{port}"}))
    with setting(tmp_path, policy=policy) as running:
        assert running.refusal(f"127.0.0.1:{port}") == 502


def test_further_tunnels_than_the_limit_are_refused(tmp_path: Path) -> None:
    with setting(tmp_path, limit=1) as running, running.inside():
        assert running.refusal(f"{HOST}:443") == 503


# --- whole URLs --------------------------------------------------------------------------------------------------


def test_a_registry_over_plain_http_is_asked_by_its_whole_url_after_its_tunnel_was_refused(tmp_path: Path) -> None:
    node = ScriptedNode({DIGEST: ScriptedBlob(BLOB)})
    with setting(tmp_path, node=node) as running:
        assert running.refusal(running.origin.authority) == 502
        url = f"http://{running.origin.authority}"
        assert running.mirror.request(f"{url}/v2/org/app/blobs/{DIGEST}")[1] == BLOB
        assert running.mirror.request(f"{url}/v2/org/app/manifests/1.0?x=1")[1] == b"from the origin"
        assert running.origin.seen[0].target == "/v2/org/app/manifests/1.0?x=1"
        assert running.origin.seen[0].all("Host") == [running.origin.authority]


def test_a_whole_url_of_the_mirror_itself_is_the_mirrors(tmp_path: Path) -> None:
    with setting(tmp_path) as running:
        response, body = running.mirror.request(f"http://127.0.0.1:{running.mirror.port}/v2/app/manifests/1.0")
        assert (response.status, body) == (200, b"from the origin")


@pytest.mark.parametrize(
    "url", ["http://example.com/", "http://169.254.169.254/latest/meta-data", "http://10.0.0.1/v2/"]
)
def test_a_whole_url_of_anything_else_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str) -> None:
    caplog.set_level(logging.INFO)
    with setting(tmp_path) as running:
        assert running.mirror.request(url)[0].status == 403
        assert "method=GET host=" in running.log_line(caplog)
        assert running.lookups == []
