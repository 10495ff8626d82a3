"""A statement of SQL is made of literals, and of names that `part` has checked: pyright proves it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.programs import needs_node
from wxauth.server.core.statements import part

ROOT = Path(__file__).parents[2]
PLANTED = """
from wxauth.server.core.statements import Statement, part


def by(name: str) -> Statement[int]:
    assert Statement[int](f"SELECT 1 FROM {part(name)}")
    return Statement[int](f"SELECT 1 FROM {name}")
"""


@pytest.mark.slow
@pytest.mark.node
def test_no_statement_is_made_of_other_strings(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(PLANTED)
    src = os.path.relpath(ROOT / "src", tmp_path)
    config = {
        "include": ["planted.py", f"{src}/wxauth/server/**/*rows.py", f"{src}/wxauth/server/core"],
        "extraPaths": [src],
        "venvPath": str(ROOT),
        "venv": ".venv",
        "typeCheckingMode": "off",
        **dict.fromkeys(("reportArgumentType", "reportReturnType", "reportMissingImports"), "error"),
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    folder = ROOT / "tests/node"
    pyright = [needs_node(folder), str(folder / "node_modules/pyright/index.js")]
    done = subprocess.run([*pyright, "--outputjson", "-p", str(tmp_path)], capture_output=True, text=True, check=False)
    wrong = [each for each in json.loads(done.stdout)["generalDiagnostics"] if "Literal" in each["message"]]
    assert [(Path(each["file"]).name, each["range"]["start"]["line"]) for each in wrong] == [("planted.py", 6)]


@pytest.mark.no_database
@pytest.mark.parametrize("name", ["", "users; DROP TABLE users", "a--b", "Users", "a b", "'a'", "a\n"])
def test_what_is_no_name_is_no_part(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        part(name)
