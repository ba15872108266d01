"""Real container clients, each with folders and configuration of its own, in any network namespace.

Images and settings of the host's own clients are neither read nor written. (podman and skopeo note, for root, where
they saw a blob, in /var/lib/containers/cache; that changes no pull.)
"""

from tests.support.clients.containerd import Containerd
from tests.support.clients.cri import CriImageService
from tests.support.clients.docker import DockerDaemon
from tests.support.clients.podman import Buildah, Mirror, Podman, Skopeo

__all__ = ["Buildah", "Containerd", "CriImageService", "DockerDaemon", "Mirror", "Podman", "Skopeo"]
