"""Write the contents of the image, and of an installation by the lock, as a CycloneDX 1.6 document.

This script replaces cyclonedx-bom, which would bring 33 packages for one list. Equal locks give equal bytes.
"""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "requirements/server.lock"
_PIN: Final = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\\n]+?))? \\\n(?P<hashes>(?:    --hash=.*\n?)+)",
    re.MULTILINE,
)


def sbom() -> dict[str, Any]:
    """Return the document. Packages that only some platforms or versions of Python need are optional."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    lock = LOCK.read_text("utf-8")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid5(UUID(int=0), lock + version).urn,
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                **_named("wxauth", version),
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        # The guard is part of this clone, so no lock lists it.
        "components": [
            {"type": "library", **_named("wxauth-guard", version), "scope": "required"},
            *map(_component, _PIN.finditer(lock)),
        ],
    }


def _component(found: re.Match[str]) -> dict[str, Any]:
    named = _named(found["name"], found["version"])
    hashes = [{"alg": "SHA-256", "content": value} for value in re.findall(r"sha256:([0-9a-f]{64})", found["hashes"])]
    distribution = {"type": "distribution", "url": named["purl"], "comment": "any of these files", "hashes": hashes}
    scope = "optional" if found["marker"] else "required"
    return {"type": "library", **named, "scope": scope, "externalReferences": [distribution]}


def _named(name: str, version: str) -> dict[str, str]:
    purl = f"pkg:pypi/{name}@{version}"
    return {"bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(sbom(), indent=2) + "\n", "utf-8")
