"""The compared services in other languages, whether their tools are installed, and how to build them."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import ROOT

_GO = ("go", "go_whole", "go_tables")
PEERS = (*_GO, "express")

_SOURCES = ROOT / "benchmarks/services"
_EXPRESS = _SOURCES / "express"
_GO_PEER = _SOURCES / "go"


def missing(name: str) -> str | None:
    """Return what this machine lacks for a service, or the command that installs it; None if nothing is missing."""
    if name in _GO and not shutil.which("go"):
        return "Go, as new as benchmarks/services/go/go.mod says"
    if name == "express" and not (shutil.which("node") and shutil.which("npm")):
        return "apt-get install nodejs npm"
    return None


def command_of(name: str, folder: Path) -> Sequence[str]:
    """Build a service, and return the command that runs it."""
    if name in _GO:
        binary = folder / f"{name}-peer"
        _run("go", "build", "-C", str(_GO_PEER), "-o", str(binary), env={**os.environ, "GOFLAGS": ""})
        return [str(binary)]
    _run("npm", "ci", "--prefix", str(_EXPRESS), "--loglevel=error", env=dict(os.environ))
    return [shutil.which("node") or "node", str(_EXPRESS / "app.js")]


def versions() -> dict[str, str]:
    """Return the versions of the tools of the services that can run here."""
    told = {}
    if missing("go") is None:
        pgx = (_GO_PEER / "go.mod").read_text().partition("pgx/v5 v")[2].split()[0]
        told["go"] = f"{_run('go', 'env', '-C', str(_GO_PEER), 'GOVERSION', env=dict(os.environ))}, pgx {pgx}"
    if missing("express") is None:
        packages = json.loads((_EXPRESS / "package-lock.json").read_text())["packages"]
        names = json.loads((_EXPRESS / "package.json").read_text())["dependencies"]
        parts = [f"{name} {packages[f'node_modules/{name}']['version']}" for name in names]
        told["express"] = ", ".join([f"node {_run('node', '--version', env=dict(os.environ))}", *parts])
    return told


def _run(*command: str, env: dict[str, str]) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:2])}: {done.stderr[-1000:]}")
    return done.stdout.strip()
