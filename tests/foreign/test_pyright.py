"""The guard's public types also satisfy pyright, which isn't the project's own type checker."""

import json
import subprocess
import sys

import pytest

from tests.docs import ROOT
from tests.programs import NODE_PATIENCE, NODE_TESTS, needs_node

GUARD = "clients/python/src/wxauth_guard"


@pytest.mark.node
@pytest.mark.slow
def test_pyright_finds_nothing_in_the_guard_and_in_code_that_uses_it() -> None:
    node, checked = needs_node(NODE_TESTS), ["tests/guard/typed.py", GUARD]
    command = [node, str(NODE_TESTS / "node_modules/pyright/index.js"), "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, *checked], cwd=ROOT, capture_output=True, text=True, timeout=NODE_PATIENCE)
    found = json.loads(done.stdout)
    assert found["generalDiagnostics"] == []
    assert found["summary"]["filesAnalyzed"] > len(checked)
