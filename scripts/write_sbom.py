"""Write a software bill of materials of the image, which also describes an installation from the lock file.

The document has the form of CycloneDX 1.6. We do not use cyclonedx-bom, because it would add 33 packages for one list.
The same lock file and version always result in the same bytes.
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
"""The pattern of a package in the lock file.

The optional marker says which platforms or versions of Python need the package. The hashes follow in lines of their
own, one for each file of the package.
"""


def sbom() -> dict[str, Any]:
    """Return the document. A package with a marker is optional, because not every installation needs it."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    lock = LOCK.read_text("utf-8")
    wxauth = {
        "type": "application",
        **_identity("wxauth", version),
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    # The lock file does not list the guard, because it is part of this repository, and has the same version.
    guard = {"type": "library", **_identity("wxauth-guard", version), "scope": "required"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid5(UUID(int=0), lock + version).urn,
        "version": 1,  # the version of the document
        "metadata": {"component": wxauth},
        "components": [guard, *(_component(pin) for pin in _PIN.finditer(lock))],
    }


def _component(pin: re.Match[str]) -> dict[str, Any]:
    """Return the component for a package in the lock file. `pin` is a match of `_PIN`."""
    identity = _identity(pin["name"], pin["version"])
    hashes = [{"alg": "SHA-256", "content": value} for value in re.findall(r"sha256:([0-9a-f]{64})", pin["hashes"])]
    # An installation uses only one of the package's files, so the hashes do not identify the component itself.
    distribution = {"type": "distribution", "url": identity["purl"], "comment": "any of these files", "hashes": hashes}
    scope = "optional" if pin["marker"] else "required"
    return {"type": "library", **identity, "scope": scope, "externalReferences": [distribution]}


def _identity(name: str, version: str) -> dict[str, str]:
    """Return the fields that identify a Python package, with its package URL (purl)."""
    purl = f"pkg:pypi/{name}@{version}"
    return {"bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(sbom(), indent=2) + "\n", "utf-8")
