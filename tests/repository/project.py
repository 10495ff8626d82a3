"""Reads the files that describe the project."""

import re
import tomllib
from email.parser import Parser
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from packaging.markers import Marker

from tests.docs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GUARD = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())["project"]
DESK = tomllib.loads((ROOT / "desk/pyproject.toml").read_text())["project"]

in_a_clone = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source distribution has no git")


def metadata(wheel: Path) -> Any:
    with ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def pins(lock: Path, python: str = "3.15") -> dict[str, str]:
    """Return the version of each package that this lock pins for a version of Python."""
    found = re.findall(r"^([\w.-]+)==([^ ;]+)(?: ; ([^\\\n]+))?", lock.read_text(), re.MULTILINE)
    at = {"python_full_version": f"{python}.2", "python_version": python}
    return {name: version for name, version, marker in found if not marker or _may_hold(marker, at)}


def _may_hold(marker: str, at: dict[str, str]) -> bool:
    """Return whether a marker holds for this Python on some platform."""
    elsewhere = {"sys_platform": "win32", "platform_system": "Windows", "platform_python_implementation": "PyPy"}
    return any(Marker(marker).evaluate({**at, **there}) for there in ({}, elsewhere))
