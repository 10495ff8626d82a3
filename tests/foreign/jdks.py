"""Finds the JDKs of this machine."""

import re
from pathlib import Path

UNREACHED = re.compile(r"Could not (resolve|transfer)|dial tcp|requires go >=|No such file or directory: mvn|EAI_AGAIN")


def jdks() -> list[str]:
    """Return the folders of the JDKs, oldest version first."""
    found = {}
    for release in Path("/usr/lib/jvm").glob("*/release"):
        if version := (release.parent / "bin/javac").exists() and re.search(r'VERSION="(\d+)', release.read_text()):
            found[int(version[1])] = str(release.parent)
    return [home for _, home in sorted(found.items())]
