"""The bare floor of an intercepted tunnel: a loop of preadv and TLS, in a process of its own.

`python -m benchmarks.serving.loop FILE CERTIFICATE KEY`: it prints its port, and sends the file to whoever connects.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Final

_BUFFER_BYTES: Final = 256 * 1024


def main() -> None:
    file, certificate, key = map(Path, sys.argv[1:])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with socket.create_server(("127.0.0.1", 0)) as listener, file.open("rb") as source:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        while True:
            plain, _ = listener.accept()
            with context.wrap_socket(plain, server_side=True) as sock:
                offset = 0
                while count := os.preadv(source.fileno(), [buffer], offset):
                    sock.sendall(buffer[:count])
                    offset += count


if __name__ == "__main__":
    main()
