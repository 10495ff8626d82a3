"""The project as its own files describe it."""

import re
import tomllib
from email.parser import Parser
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.docs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GUARD = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())["project"]

in_a_clone = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source distribution has no git")


def metadata(wheel: Path) -> Any:
    with ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^ ;]+)", lock.read_text(), re.MULTILINE))
