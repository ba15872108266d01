"""Every client that can be set up. A client is added here, with its planner beside this module."""

from __future__ import annotations

from typing import Final

from peer.setup import buildkit, containerd, docker, k3s, registries_conf
from peer.setup.contract import Client

_CLIENTS: Final = (
    Client(
        "docker",
        "docker",
        docker.plan,
        "systemctl daemon-reload && systemctl restart docker",
        "docker.io is pulled from Docker Hub directly; with --proxy every pull fails",
    ),
    Client(
        "containerd",
        "containerd",
        containerd.plan,
        "systemctl restart containerd",
        "each request goes to the registry itself",
        "only if config.toml changed: hosts.toml files are read with each pull",
    ),
    Client(
        "podman",
        "containers",
        registries_conf.plan,
        "",
        "pulls begin at the registry itself; one that the peer was serving fails, and is to be repeated",
        "nothing: the next pull reads it",
    ),
    Client(
        "crio",
        "containers",
        registries_conf.plan,
        "systemctl reload crio",
        "pulls begin at the registry itself; one that the peer was serving fails, and the kubelet repeats it",
    ),
    Client(
        "buildkit",
        "buildkit",
        buildkit.plan,
        "systemctl restart buildkit",
        "each request goes to the registry itself",
    ),
    Client(
        "k3s",
        "k3s",
        k3s.plan,
        "systemctl restart k3s",
        "each request goes to the registry itself, unless disable-default-registry-endpoint is set",
        "k3s-agent on an agent",
    ),
)
CLIENTS: Final = {client.name: client for client in _CLIENTS}
