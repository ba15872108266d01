"""What a container client's files must say so that it pulls through this node's peer, and how that is taken back.

One module a client plans, from the text that is there, what to write: `docker`, `containerd`, `registries_conf` (for
podman and CRI-O), `buildkit`, `k3s`; `clients` lists them. Planning is pure. `disk` and `record` alone read and write,
`reversal` takes back. Nothing here restarts a client, or talks to one.
"""
