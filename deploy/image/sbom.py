"""Prints what the image holds as an SPDX 2.3 document: its Debian packages and its Python distributions.

`sbom.py ROOT NAME VERSION TIME`, ROOT being the image's unpacked files, TIME in seconds since 1970.
"""

from __future__ import annotations

import datetime
import email
import hashlib
import importlib.metadata
import json
import re
import sys
from pathlib import Path


def debian_packages(root: Path) -> list[dict[str, str]]:
    """By their own descriptions, where scanners of images look for them."""
    described = [
        email.message_from_string(file.read_text()) for file in sorted((root / "var/lib/dpkg/status.d").iterdir())
    ]
    return [
        {
            "name": each["Package"],
            "version": each["Version"],
            "supplier": f"Person: {each['Maintainer']}",
            "license": "NOASSERTION",
            "purl": f"pkg:deb/debian/{each['Package']}@{each['Version']}?arch={each['Architecture']}",
        }
        for each in described
    ]


def python_distributions(folder: Path) -> list[dict[str, str]]:
    """By their metadata."""
    found = []
    for each in importlib.metadata.distributions(path=[str(folder)]):
        license_text = each.metadata.get("License-Expression") or "NOASSERTION"
        found.append(
            {
                "name": each.name,
                "version": each.version,
                "supplier": "NOASSERTION",
                "license": license_text,
                "purl": f"pkg:pypi/{re.sub(r'[-_.]+', '-', each.name).lower()}@{each.version}",
            }
        )
    return sorted(found, key=lambda each: each["purl"])


def document(name: str, version: str, time_unix_s: int, parts: list[dict[str, str]]) -> dict[str, object]:
    """SPDX 2.3, as https://spdx.github.io/spdx-spec/v2.3/ has it. The same parts make the same document."""
    packages = [
        {
            "SPDXID": f"SPDXRef-{number}",
            "name": part["name"],
            "versionInfo": part["version"],
            "supplier": part["supplier"],
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": part["license"],
            "copyrightText": "NOASSERTION",
            "externalRefs": [
                {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": part["purl"]}
            ],
        }
        for number, part in enumerate(parts)
    ]
    fingerprint = hashlib.sha256(json.dumps(packages).encode()).hexdigest()
    created = datetime.datetime.fromtimestamp(time_unix_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": f"urn:layercast:sbom:{fingerprint}",
        "creationInfo": {"created": created, "creators": ["Tool: layercast make image"]},
        "packages": packages,
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": package["SPDXID"],
            }
            for package in packages
        ],
    }


def main() -> None:
    """Prints it."""
    root, name, version, time_text = sys.argv[1:]
    parts = [*debian_packages(Path(root)), *python_distributions(Path(root) / "opt/layercast")]
    json.dump(document(name, version, int(time_text), parts), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
