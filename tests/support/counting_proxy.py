"""The counting proxy as tests use it: in this process (CountingProxy), or as a process of its own in a namespace."""

from benchmarks.demo.counting_proxy import CountingProxy
from benchmarks.demo.faults import Fault
from benchmarks.demo.ledger import Exchange, Ledger, union_bytes
from benchmarks.demo.proxy_process import ProxyControl
from benchmarks.harness.counting_proxy import CountingProxyProcess

__all__ = ["CountingProxy", "CountingProxyProcess", "Exchange", "Fault", "Ledger", "ProxyControl", "union_bytes"]
