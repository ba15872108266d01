"""A counting proxy in a process of its own, in a network namespace if asked, and the handle that steers it.

    python -m benchmarks.cluster.proxy_process UPSTREAM LISTEN

It prints its address and serves until its input ends. Each line of input calls a method of the proxy, and each line of
output after the first is what came of it, in JSON.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import threading
from typing import TYPE_CHECKING

from benchmarks.cluster.closing import Closing
from benchmarks.cluster.counting_proxy import Address, CountingProxy
from benchmarks.cluster.faults import Fault
from benchmarks.cluster.helper import Helper
from benchmarks.cluster.ledger import Exchange, Ledger
from benchmarks.cluster.processes import WAIT_S
from proto.errors import LocalError

if TYPE_CHECKING:
    from pathlib import Path


class CountingProxyProcess(Closing):
    """Has the methods of a CountingProxy; a context manager. `address` is HOST:PORT as bound."""

    def __init__(
        self,
        upstream: Address,
        listen: str = "127.0.0.1:0",
        *,
        netns: str | None = None,
        log: Path | None = None,
    ) -> None:
        words = [f"{upstream[0]}:{upstream[1]}", listen]
        self._lock = threading.Lock()
        self._helper = Helper("benchmarks.cluster.proxy_process", words, log, netns=netns)
        try:
            self.address = str(self._answer())
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def close(self) -> None:
        self._helper.close()

    def ledger(self) -> Ledger:
        entries = self._call("ledger")
        assert isinstance(entries, list)
        return Ledger(tuple(_exchange(entry) for entry in entries))

    def reset(self) -> None:
        self._call("reset")

    def add_fault(self, fault: Fault) -> None:
        self._call("add_fault", dataclasses.asdict(fault))

    def clear_faults(self) -> None:
        self._call("clear_faults")

    def set_rate(self, bytes_per_s: float | None) -> None:
        self._call("set_rate", bytes_per_s)

    def refuse(self) -> None:
        self._call("refuse")

    def accept(self) -> None:
        self._call("accept")

    def cut(self) -> None:
        self._call("cut")

    def _call(self, name: str, *arguments: object) -> object:
        with self._lock:
            self._helper.send({"call": name, "arguments": arguments})
            return self._answer()

    def _answer(self) -> object:
        message = self._helper.receive(WAIT_S)
        if message is None:
            raise LocalError(f"the counting proxy did not answer within {WAIT_S:g} s")
        return message["answer"]


# What tests and benchmarks do with a counting proxy, be it in this process or in another.
ProxyControl = CountingProxy | CountingProxyProcess


def _exchange(entry: dict[str, object]) -> Exchange:
    """An Exchange from its JSON, in which tuples have become lists."""
    exchange = Exchange(**entry)  # type: ignore[arg-type]  # the fields are those that asdict wrote on the other side
    exchange.request_headers = [(name, value) for name, value in exchange.request_headers]
    if exchange.ranges is not None:
        first, last = exchange.ranges
        exchange.ranges = (first, last)
    return exchange


def _perform(proxy: CountingProxy, name: str, arguments: list[object]) -> object:
    """Do one call; its answer as JSON can hold it."""
    if name == "add_fault":
        (entry,) = arguments
        assert isinstance(entry, dict)
        arguments = [Fault(**{**entry, "headers": tuple((key, value) for key, value in entry["headers"])})]
    answer = getattr(proxy, name)(*arguments)
    return [dataclasses.asdict(exchange) for exchange in answer.exchanges] if isinstance(answer, Ledger) else None


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps({"answer": answer}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the proxy until the input ends."""
    upstream, listen = sys.argv[1:]
    # A Ctrl-C in the terminal is for whoever steers this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with CountingProxy(_address(upstream), _address(listen)) as proxy:
        _say(proxy.address)
        for line in sys.stdin:
            request = json.loads(line)
            _say(_perform(proxy, request["call"], request["arguments"]))


if __name__ == "__main__":
    main()
