"""Configurations that container clients have on machines before Layercast comes: twelve of each client.

Each is the files that are there, by path, as people, packages and installers leave them. All of them can be set up.
"""

from __future__ import annotations

from typing import Final

_DAEMON: Final = "/etc/docker/daemon.json"
_CONTAINERD: Final = "/etc/containerd/config.toml"
_HOSTS: Final = "/etc/containerd/certs.d/{}/hosts.toml"
_REGISTRIES: Final = "/etc/containers/registries.conf"
_BUILDKITD: Final = "/etc/buildkit/buildkitd.toml"
_K3S: Final = "/etc/rancher/k3s/registries.yaml"
_CRI: Final = 'plugins."io.containerd.grpc.v1.cri"'

DOCKER: Final[list[dict[str, str]]] = [
    {},
    {_DAEMON: ""},
    {_DAEMON: "{}\n"},
    {_DAEMON: '{"log-driver": "journald"}'},
    {_DAEMON: '{\n  "log-driver": "json-file",\n  "log-opts": {"max-size": "10m", "max-file": "3"}\n}\n'},
    {_DAEMON: '{\n\t"data-root": "/data/docker",\n\t"storage-driver": "overlay2"\n}'},
    {_DAEMON: '{\r\n    "live-restore": true,\r\n    "userland-proxy": false\r\n}\r\n'},
    {_DAEMON: '{"registry-mirrors":[],"debug":true}\n'},
    {_DAEMON: '{\n  "registry-mirrors": [\n    "https://mirror.gcr.io",\n    "https://hub.example.com/"\n  ]\n}\n'},
    {_DAEMON: '{ "insecure-registries" : ["10.0.0.5:5000"] , "dns": ["10.0.0.2"] }\n\n'},
    {
        _DAEMON: '{\n    "default-runtime": "nvidia",\n    "runtimes": {\n        "nvidia": {\n'
        '            "args": [],\n            "path": "nvidia-container-runtime"\n        }\n    }\n}\n'
    },
    {
        _DAEMON: '{\n  "features": {"buildkit": true},\n  "labels": ["registry-mirrors", "a=\\"{[\\""]\n}\n',
        "/etc/systemd/system/docker.service.d/limits.conf": "[Service]\nLimitNOFILE=1048576\n",
    },
]
CONTAINERD: Final[list[dict[str, str]]] = [
    {},
    {_CONTAINERD: ""},
    {_CONTAINERD: "version = 2\n"},
    {_CONTAINERD: "version = 2"},
    {_CONTAINERD: '# As packaged.\n\ndisabled_plugins = ["cri"]\n\n#root = "/var/lib/containerd"\n'},
    {
        _CONTAINERD: f"version = 2\nroot = '/data/containerd'\n\n[{_CRI}]\n  sandbox_image = 'pause:3.9' # ours\n\n"
        f"  [{_CRI}.registry]\n    config_path = \"\"\n\n    [{_CRI}.registry.mirrors]\n\n[debug]\n  level = 'info'\n"
    },
    {
        _CONTAINERD: f"version = 2\n[plugins]\n  [{_CRI}]\n    [{_CRI}.containerd.runtimes.runc]\n"
        f'      runtime_type = "io.containerd.runc.v2"\n      [{_CRI}.containerd.runtimes.runc.options]\n'
        "        SystemdCgroup = true\n"
    },
    {
        _CONTAINERD: "version = 3\n\n[plugins.'io.containerd.cri.v1.images']\n  snapshotter = 'overlayfs'\n\n"
        "[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = ''\n"
    },
    {
        _CONTAINERD: f'version = 2\n[{_CRI}.registry]\nconfig_path = "/etc/containerd/certs.d"\n',
        _HOSTS.format("_default"): '# Ours.\nserver = "https://cache.example.com"\n\n# The cache.\n'
        '[host."https://cache.example.com"]\n  capabilities = ["pull"]\n  skip_verify = true\n',
    },
    {
        _CONTAINERD: "version = 2\r\n[grpc]\r\n  max_recv_message_size = 16777216\r\n",
        _HOSTS.format("quay.io"): '[host."https://quay.example.com"]\n  capabilities = ["pull", "resolve"]',
    },
    {
        _CONTAINERD: f"version = 2\n{_CRI}.registry.config_path = '/data/certs.d:/etc/docker/certs.d'\n",
        "/data/certs.d/10.0.0.5_5000_/hosts.toml": 'server = "http://10.0.0.5:5000"\n',
    },
    {
        _CONTAINERD: 'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n',
        "/etc/containerd/conf.d/gpu.toml": f'version = 2\n[{_CRI}.containerd]\n  default_runtime_name = "nvidia"\n',
    },
]
REGISTRIES_CONF: Final[list[dict[str, str]]] = [
    {},
    {_REGISTRIES: ""},
    {_REGISTRIES: 'unqualified-search-registries = ["docker.io"]\n'},
    {_REGISTRIES: '# For more information see containers-registries.conf(5).\n#\n# short-name-mode = "enforcing"\n'},
    {_REGISTRIES: '[[registry]]\nprefix = "docker.io"\nlocation = "hub.example.com/cache"\n'},
    {_REGISTRIES: '[[registry]]\nlocation = "quay.io"\nblocked = true\n'},
    {
        _REGISTRIES: '[[registry]]\nprefix = "quay.io"\nlocation = "quay.io"\n\n[[registry.mirror]]\n'
        'location = "quay.example.com"\npull-from-mirror = "digest-only"\n'
    },
    {_REGISTRIES: '[[registry]]\nprefix = "*.example.com"\nlocation = "registry.example.com"\ninsecure = true\n'},
    {_REGISTRIES: "unqualified-search-registries = ['docker.io']\r\nshort-name-mode = 'permissive'\r\n"},
    {f"{_REGISTRIES}.d/shortnames.conf": '[aliases]\n  "debian" = "docker.io/library/debian"\n'},
    {
        f"{_REGISTRIES}.d/010-lab.conf": '[[registry]]\nlocation = "10.0.0.5:5000"\ninsecure = true\n',
        f"{_REGISTRIES}.d/README": "Not a configuration.\n",
    },
    {
        _REGISTRIES: '[[registry]]\nprefix = "docker.io/team"\nlocation = "registry.example.com/team"\n',
        f"{_REGISTRIES}.d/zz-last.conf": 'unqualified-search-registries = ["quay.io"]\n',
    },
]
BUILDKIT: Final[list[dict[str, str]]] = [
    {},
    {_BUILDKITD: ""},
    {_BUILDKITD: "debug = true\n"},
    {_BUILDKITD: "debug = true"},
    {_BUILDKITD: '# Ours.\nroot = "/data/buildkit" # large\n\n[worker.oci]\n  gc = true\n  gckeepstorage = 9000\n'},
    {_BUILDKITD: '[registry."docker.io"]\n  mirrors = ["mirror.gcr.io"]\n'},
    {_BUILDKITD: '[registry."docker.io"]\n  mirrors = [\n    "hub.example.com", # near\n    "mirror.gcr.io",\n  ]\n'},
    {_BUILDKITD: '[registry."10.0.0.5:5000"]\n  http = true\n  insecure = true\n'},
    {
        _BUILDKITD: '[registry]\n  [registry."quay.io"]\n    ca = ["/etc/ssl/quay.pem"]\n\n[grpc]\n  address = ["tcp://1"]\n'
    },
    {_BUILDKITD: "insecure-entitlements = ['network.host']\r\n[worker.containerd]\r\n  enabled = false\r\n"},
    {_BUILDKITD: "[worker.oci]\nmax-parallelism = 4\n[[worker.oci.gcpolicy]]\nall = true\nkeepBytes = 512000000\n"},
    {_BUILDKITD: 'registry."ghcr.io".mirrors = ["ghcr.example.com"]\n'},
]
K3S: Final[list[dict[str, str]]] = [
    {},
    {_K3S: ""},
    {_K3S: "# Nothing yet.\n"},
    {_K3S: "mirrors:\n"},
    {_K3S: "mirrors: {}\n"},
    {_K3S: 'mirrors:\n  "*":\n'},
    {_K3S: 'mirrors:\n  docker.io:\n    endpoint:\n      - "https://hub.example.com"  # near\n'},
    {
        _K3S: "mirrors:\n    '*':\n        endpoint:\n        - https://cache.example.com\n        - https://b.example.com"
    },
    {_K3S: 'configs:\n  registry.example.com:\n    auth:\n      username: ci\n      password: "hunter2"\n'},
    {_K3S: '---\nmirrors: {docker.io: {endpoint: ["https://hub.example.com"]}}\n'},
    {_K3S: "mirrors:\r\n  quay.io:\r\n    endpoint: [https://quay.example.com]\r\n"},
    {
        _K3S: "# Lab.\nconfigs:\n  10.0.0.5:5000: {tls: {insecure_skip_verify: true}}\n\nmirrors: # ours\n"
        "  10.0.0.5:5000:\n    endpoint:\n    - http://10.0.0.5:5000\n\n# The end.\n"
    },
]
CONFIGURATIONS: Final = {
    "docker": DOCKER,
    "containerd": CONTAINERD,
    "podman": REGISTRIES_CONF,
    "crio": REGISTRIES_CONF,
    "buildkit": BUILDKIT,
    "k3s": K3S,
}
