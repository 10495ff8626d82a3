"""uni-app's own toolchain for Vue 2 builds `examples/uni-app-vue2` for WeChat, and it works with `wxauth-desk dev`."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.docs import ROOT, block
from tests.processes import dev_with_sibling, environment
from tests.programs import needs, needs_node, output_of, run_node_tests

EXAMPLE = ROOT / "examples/uni-app-vue2"
IS_RELEASE = os.environ.get("GITHUB_REF_TYPE") == "tag"

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        not IS_RELEASE and not (EXAMPLE / "node_modules").exists(),
        reason="1,400 packages, which take minutes to install: once for each release, or after npm ci in the example",
    ),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the guide's command, for a project in another folder, as HBuilderX creates it."""
    needs_node(EXAMPLE)
    needs("npm")
    folder = tmp_path_factory.mktemp("uni-app-vue2")
    shutil.copytree(EXAMPLE / "src", folder / "shop")
    *_, command = block("docs/build/mini-program-frameworks.md", "examples/uni-app-vue2 shop-build").splitlines()
    command = command.replace("/path/to/shop", str(folder / "shop"))
    output_of("sh", "-ec", command, cwd=EXAMPLE, env=environment(UNI_OUTPUT_DIR=str(folder / "built")))
    return folder / "built"


@pytest.mark.process
def test_the_built_app_logs_in_and_calls_another_service(built: Path, tmp_path: Path) -> None:
    with dev_with_sibling(tmp_path) as world:
        run_node_tests("uni-app/vue2.test.js", {"BUILT": str(built), **world})


def test_the_developer_tools_find_the_project_to_open(built: Path) -> None:
    pages = [page["path"] for page in json.loads((EXAMPLE / "src/pages.json").read_text())["pages"]]
    assert json.loads((built / "app.json").read_text())["pages"] == pages
    project = json.loads((built / "project.config.json").read_text())
    assert (project["appid"], project["setting"]["urlCheck"]) == ("touristappid", False)


def test_old_phones_can_run_the_built_app(built: Path) -> None:
    scripts = "".join(file.read_text() for file in built.rglob("*.js"))
    assert "function" in scripts
    assert not re.search(r"\basync function|\bawait ", scripts)
