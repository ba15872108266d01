"""Real container clients, each with folders and configuration of its own, in any network namespace.

None of them reads or writes what the host's own client of that name keeps.
"""

from tests.support.clients.containerd import Containerd
from tests.support.clients.cri import CriImageService
from tests.support.clients.docker import DockerDaemon
from tests.support.clients.podman import Mirror, Podman, Skopeo

__all__ = ["Containerd", "CriImageService", "DockerDaemon", "Mirror", "Podman", "Skopeo"]
