"""The pages for people who log in to a site, in a real browser: every state, a mini-program's web-view, and WeChat."""

from pathlib import Path

import pytest

from tests.dev.running import running_dev
from tests.forked import stand_in
from tests.programs import needs, run_node_tests


@pytest.mark.own_database
@pytest.mark.no_signing_key
@pytest.mark.process
@pytest.mark.browser
@pytest.mark.node
def test_the_pages_of_a_login_in_a_browser(tmp_path: Path, database_url: str) -> None:
    chromium = needs("chromium-headless-shell", "chromium")
    with running_dev(tmp_path, WXAUTH_DATABASE_URL=database_url, WXAUTH_SCAN_RATE_LIMIT="200/minute") as dev:
        env = {
            "CHROMIUM": chromium,
            "SERVICE_URL": dev.url,
            "SITE_URL": dev.site_url,
            "WECHAT_URL": dev.wechat_url,
            "WXAUTH": str(stand_in(tmp_path)),
            "WXAUTH_DATABASE_URL": database_url,
            "WXAUTH_ISSUER": dev.url,
        }
        for file in ("oauth/web_view.test.js", "pages/pages.test.js"):
            run_node_tests(file, env)
