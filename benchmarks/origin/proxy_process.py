"""A counting proxy as a process of its own, and the handle by which another process steers it.

    python -m benchmarks.origin.proxy_process --listen HOST:PORT --upstream HOST:PORT --control PATH

It prints `ready counting-proxy address=HOST:PORT` and serves until SIGTERM. The control socket is a Unix one, so
that it is reached from any network namespace. One request and one answer a line, in JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
import socket
import socketserver
import ssl
import threading
from pathlib import Path
from typing import Final, Protocol

from benchmarks.origin.counting_proxy import Address, CountingProxy
from benchmarks.origin.faults import Fault
from benchmarks.origin.ledger import Exchange, Ledger

_CONTROL_TIMEOUT_S: Final = 30.0


class ProxyControl(Protocol):
    """What tests and benchmarks do with a counting proxy, be it in this process or in another."""

    def ledger(self) -> Ledger:
        """What has passed so far; all that any client has received by now is in it."""
        ...

    def reset(self) -> None:
        """Forget what has passed so far."""
        ...

    def add_fault(self, fault: Fault) -> None:
        """Put a fault in force."""
        ...

    def clear_faults(self) -> None:
        """Drop all faults."""
        ...

    def set_rate(self, bytes_per_s: float | None) -> None:
        """Limit the bytes per second of all answers together."""
        ...

    def refuse(self) -> None:
        """Refuse connections and cut those that are open."""
        ...

    def accept(self) -> None:
        """Accept connections again."""
        ...

    def cut(self) -> None:
        """Cut all open connections."""
        ...


class RemoteCountingProxy:
    """Steers a proxy that runs as `python -m benchmarks.origin.proxy_process`; it is a ProxyControl."""

    def __init__(self, control: Path) -> None:
        self._control = control

    def ledger(self) -> Ledger:
        """What has passed so far."""
        entries = self._call("ledger")
        assert isinstance(entries, list)
        return Ledger(tuple(_exchange(entry) for entry in entries))

    def reset(self) -> None:
        """Forget what has passed so far."""
        self._call("reset")

    def add_fault(self, fault: Fault) -> None:
        """Put a fault in force."""
        self._call("add_fault", dataclasses.asdict(fault))

    def clear_faults(self) -> None:
        """Drop all faults."""
        self._call("clear_faults")

    def set_rate(self, bytes_per_s: float | None) -> None:
        """Limit the bytes per second of all answers together."""
        self._call("set_rate", bytes_per_s)

    def refuse(self) -> None:
        """Refuse connections and cut those that are open."""
        self._call("refuse")

    def accept(self) -> None:
        """Accept connections again."""
        self._call("accept")

    def cut(self) -> None:
        """Cut all open connections."""
        self._call("cut")

    def _call(self, name: str, argument: object = None) -> object:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_CONTROL_TIMEOUT_S)
            sock.connect(str(self._control))
            sock.sendall(json.dumps({"call": name, "argument": argument}).encode() + b"\n")
            with sock.makefile("rb") as answer:
                return json.loads(answer.readline())


def _exchange(entry: dict[str, object]) -> Exchange:
    """An Exchange from its JSON, in which tuples have become lists."""
    exchange = Exchange(**entry)  # type: ignore[arg-type]  # the fields are those that asdict wrote on the other side
    exchange.request_headers = [(name, value) for name, value in exchange.request_headers]
    if exchange.ranges is not None:
        first, last = exchange.ranges
        exchange.ranges = (first, last)
    return exchange


def _fault(entry: object) -> Fault:
    assert isinstance(entry, dict)
    return Fault(**{**entry, "headers": tuple((name, value) for name, value in entry["headers"])})


class _ControlHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _ControlServer)
        request = json.loads(self.rfile.readline())
        answer = server.perform(request["call"], request["argument"])
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class _ControlServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, proxy: CountingProxy) -> None:
        super().__init__(str(path), _ControlHandler)
        self._proxy = proxy

    def perform(self, call: str, argument: object) -> object:
        """Do one call; its answer as JSON can hold it."""
        if call == "ledger":
            return [dataclasses.asdict(exchange) for exchange in self._proxy.ledger().exchanges]
        if call == "add_fault":
            self._proxy.add_fault(_fault(argument))
        elif call == "set_rate":
            assert argument is None or isinstance(argument, int | float)
            self._proxy.set_rate(argument)
        else:
            plain = {
                "reset": self._proxy.reset,
                "clear_faults": self._proxy.clear_faults,
                "refuse": self._proxy.refuse,
                "accept": self._proxy.accept,
                "cut": self._proxy.cut,
            }
            plain[call]()
        return None


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    """Run the proxy until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A counting proxy in front of a registry.")
    parser.add_argument("--listen", type=_address, default=("127.0.0.1", 0), metavar="HOST:PORT")
    parser.add_argument("--upstream", type=_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--control", type=Path, required=True, metavar="PATH", help="Unix socket to steer it by")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM: serve https with it")
    parser.add_argument("--tls-key", type=Path, metavar="FILE")
    options = parser.parse_args()
    tls = None
    if options.tls_certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.tls_certificate, options.tls_key)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with (
        CountingProxy(options.upstream, options.listen, tls) as proxy,
        _ControlServer(options.control, proxy) as control,
    ):
        steering = threading.Thread(target=control.serve_forever, name="control")
        steering.start()
        print(f"ready counting-proxy address={proxy.address}", flush=True)
        stopped.wait()
        control.shutdown()
        steering.join()
    with contextlib.suppress(FileNotFoundError):
        options.control.unlink()


if __name__ == "__main__":
    main()
