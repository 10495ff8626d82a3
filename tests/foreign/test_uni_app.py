"""`examples/uni-app` is built for WeChat by uni-app's own toolchain and works with `wxauth-desk dev`."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.docs import block
from tests.processes import dev_with_sibling, environment
from tests.programs import ROOT, needs, needs_node, output_of, run_node_tests

EXAMPLE = ROOT / "examples/uni-app"
NATIVE = ROOT / "examples/miniprogram"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of `npm run build`."""
    needs_node(EXAMPLE)
    folder = tmp_path_factory.mktemp("uni-app")
    env = environment(UNI_OUTPUT_DIR=str(folder))
    output_of(needs("npm"), "run", "build", "--prefix", EXAMPLE, env=env)
    return folder


@pytest.mark.node
@pytest.mark.process
def test_the_built_app_logs_in_and_calls_another_service(built: Path, tmp_path: Path) -> None:
    with dev_with_sibling(tmp_path) as world:
        run_node_tests("uni-app/uni_app.test.js", {"BUILT": str(built), **world})


@pytest.mark.node
def test_the_developer_tools_find_the_project_to_open(built: Path) -> None:
    pages = [page["path"] for page in json.loads((EXAMPLE / "src/pages.json").read_text())["pages"]]
    assert json.loads((built / "app.json").read_text())["pages"] == pages
    for page in pages:
        assert all((built / f"{page}.{suffix}").is_file() for suffix in ("js", "json", "wxml"))
    project = json.loads((built / "project.config.json").read_text())
    assert (project["appid"], project["setting"]["urlCheck"]) == ("touristappid", False)


OFFER = """
<template>
  <view><text>{{ count }}</text><button class="more" @tap="count += 1">+</button><buy-button id="tea" /></view>
</template>
<script setup>
import { ref } from 'vue'
import BuyButton from '../../components/buy-button/buy-button.vue'
const count = ref(0)
</script>
"""
BUY_BUTTON = """
<template>
  <view><text>{{ bought }}</text><button class="buy" @tap="bought += 1">+</button></view>
</template>
<script setup>
import { ref } from 'vue'
const bought = ref(0)
</script>
"""
"""A page and its component, whose handlers only the markup names."""


@pytest.mark.node
def test_a_project_of_hbuilderx_is_built_where_it_is_and_its_components_are_tapped(tmp_path: Path) -> None:
    needs_node(EXAMPLE)
    needs("npm")
    shop, built = tmp_path / "shop", tmp_path / "built"
    shutil.copytree(EXAMPLE / "src", shop)
    for name, text in {"pages/offer/offer.vue": OFFER, "components/buy-button/buy-button.vue": BUY_BUTTON}.items():
        (shop / name).parent.mkdir(parents=True)
        (shop / name).write_text(text)
    pages = json.loads((shop / "pages.json").read_text())
    pages["pages"].append({"path": "pages/offer/offer"})
    (shop / "pages.json").write_text(json.dumps(pages))
    *_, command = block("docs/build/mini-program-frameworks.md", "examples/uni-app shop-build").splitlines()
    env = environment(UNI_OUTPUT_DIR=str(built))
    output_of("sh", "-ec", command.replace("/path/to/shop", str(shop)), cwd=EXAMPLE, env=env)
    run_node_tests("uni-app/fire.test.js", {"BUILT": str(built)})


def test_the_uni_app_example_has_the_native_examples_simulation() -> None:
    native = (NATIVE / "simulated.js").read_text()
    assert (EXAMPLE / "src/simulated.js").read_text() == re.sub(r"\bwx\b(?=[.`])", "uni", native)


RECIPE = """
const answers = JSON.parse(process.argv[1])
const stored = [], shown = []
globalThis.uni = {
  login: ({ success }) => success({ code: 'code' }),
  request: ({ success }) => success(answers.shift()),
  setStorageSync: (key, value) => stored.push([key, value]),
  showToast: ({ title }) => shown.push(title),
}
while (answers.length > 0) {
  %s
}
console.log(JSON.stringify({ stored, shown }))
"""


@pytest.mark.node
def test_the_recipe_for_apps_stores_tokens_and_shows_a_refusal() -> None:
    tokens, refusal = {"access_token": "a"}, {"code": "account_disabled", "title": "Banned"}
    answers = [
        {"statusCode": 403, "data": refusal},
        {"statusCode": 502, "data": "<html>"},
        {"statusCode": 200, "data": tokens},
    ]
    recipe = (ROOT / "examples/mobile/uni_login.js").read_text()
    done = json.loads(output_of(needs("node"), "--eval", RECIPE % recipe, json.dumps(answers)))
    assert done["stored"] == [["tokens", tokens]]
    assert [len(done["shown"]), done["shown"][0]] == [2, "Banned"]
