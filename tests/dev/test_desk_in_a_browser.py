"""The phone on the desk works in a real browser. These tests have their own `wxauth-desk dev`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dev.running import Dev, running_dev
from tests.processes import WXAUTH_DESK, Running, free_port
from tests.programs import needs, run_node_tests

pytestmark = [pytest.mark.process, pytest.mark.browser, pytest.mark.node]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("dev")
    with running_dev(folder, WXAUTH_WECHAT_TIMEOUT="4") as dev:  # the page sees that WeChat hangs
        yield dev


def test_the_example_site_is_logged_in_to_by_the_phone_on_the_desk(dev: Dev) -> None:
    env = {
        "CHROMIUM": needs("chromium-headless-shell", "chromium"),
        "DESK_URL": f"{dev.wechat_url}/desk/",
        "SERVICE_URL": dev.url,
        "SITE_URL": dev.site_url,
        "SCREENSHOTS": os.environ.get("SCREENSHOTS", ""),
    }
    run_node_tests("desk/scan.test.js", env)


@pytest.mark.parametrize("part", ["0/2", "1/2"])
def test_the_page_plays_the_phone_in_a_browser(dev: Dev, part: str) -> None:
    chromium = needs("chromium-headless-shell", "chromium")
    env = {"CHROMIUM": chromium, "DESK_URL": f"{dev.wechat_url}/desk/", "SERVICE_URL": dev.url, "PART": part}
    run_node_tests("desk/desk.test.js", env)


@pytest.mark.no_database
def test_the_page_is_of_use_to_a_back_end_that_is_not_wxauth(tmp_path: Path) -> None:
    port = free_port()
    with Running(WXAUTH_DESK, "wechat", "--port", str(port), cwd=tmp_path) as running:
        running.wait_for("/about")
        chromium = needs("chromium-headless-shell", "chromium")
        run_node_tests("desk/alone.test.js", {"CHROMIUM": chromium, "WECHAT_URL": f"http://127.0.0.1:{port}"})
