"""Nest's guard protects what a real Nest serves beside routes: GraphQL, gateways and micro-services."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.programs import NODE_PATIENCE, ROOT, needs_node

pytestmark = pytest.mark.foreign

PROJECT = Path(__file__).with_name("nest")


@pytest.mark.node
def test_nests_guard_protects_resolvers_gateways_and_messages(tmp_path: Path) -> None:
    node = needs_node(PROJECT)
    project = tmp_path / "nest"
    project.mkdir()
    for name in ("app.ts", "nest.test.js", "package.json", "tsconfig.json"):
        shutil.copy(PROJECT / name, project)
    readme = (ROOT / "clients/node/README.md").read_text()
    [feed] = [code for code in re.findall(r"```ts\n(.*?)```", readme, re.DOTALL) if "attachRequest" in code]
    (project / "feed.ts").write_text(feed)
    modules = project / "node_modules"
    modules.mkdir()
    for package in (PROJECT / "node_modules").iterdir():
        (modules / package.name).symlink_to(package)
    # A link would find the packages of the guard's own tests.
    shutil.copytree(ROOT / "clients/node/lib", modules / "wxauth-guard/lib")
    shutil.copy(ROOT / "clients/node/package.json", modules / "wxauth-guard")
    env = {**os.environ, "NODE_OPTIONS": "--preserve-symlinks"}
    for command in ([modules / "typescript/bin/tsc"], ["--test", "--test-reporter=spec", "nest.test.js"]):
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": NODE_PATIENCE}
        done = subprocess.run([node, *command], cwd=project, env=env, **options)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "ℹ fail 0" in done.stdout
    assert "ℹ pass 19" in done.stdout
