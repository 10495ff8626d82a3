"""The page of `/v1/authorize` in a mini-program's web-view and in WeChat, in a real browser, with the example site."""

from pathlib import Path

import pytest

from tests.dev.running import running_dev
from tests.programs import needs, run_node_tests


@pytest.mark.process
@pytest.mark.browser
@pytest.mark.node
def test_a_site_in_a_web_view_asks_the_mini_program_and_in_wechat_its_page(tmp_path: Path) -> None:
    chromium = needs("chromium-headless-shell", "chromium")
    with running_dev(tmp_path) as dev:
        env = {"CHROMIUM": chromium, "SERVICE_URL": dev.url, "SITE_URL": dev.site_url, "WECHAT_URL": dev.wechat_url}
        run_node_tests("oauth/web_view.test.js", env)
