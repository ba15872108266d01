"""The counting proxy as tests use it: in this process (CountingProxy), or as a process of its own in a namespace."""

from benchmarks.harness.counting_proxy import CountingProxyProcess
from benchmarks.origin.counting_proxy import CountingProxy
from benchmarks.origin.faults import Fault
from benchmarks.origin.ledger import Exchange, Ledger, union_bytes
from benchmarks.origin.proxy_process import ProxyControl

__all__ = ["CountingProxy", "CountingProxyProcess", "Exchange", "Fault", "Ledger", "ProxyControl", "union_bytes"]
