"""The proxies guide shows a tested nginx configuration of `deploy/proxies`, and each of its pieces is necessary."""

import re
from pathlib import Path

import httpx
import pytest

from tests.docs import ROOT, code_blocks
from tests.processes import free_port, is_served, until
from tests.proxies.running import CONFIGURATIONS, nginx_with

pytestmark = pytest.mark.proxy

PIECES_TO_START = {
    "where wxauth is": r"upstream wxauth \{.*?\}\n",
    "http.conf": r"include wxauth/http.conf; .*?\n",
    "guard.conf": r"include wxauth/guard.conf;\n",
}


def shown() -> str:
    """Return the English page's configuration. `scripts/check` makes sure that the Chinese page shows the same one."""
    [text] = code_blocks(ROOT / "docs/build/siblings-proxies.md", "nginx")
    return text


def without(piece: str) -> str:
    text, count = re.subn(piece, "", shown(), flags=re.DOTALL)
    assert count
    return text


def test_the_configuration_shown_is_that_with_which_all_else_is_tested() -> None:
    tested = iter((CONFIGURATIONS / "nginx/orders.conf").read_text().splitlines())
    for line in shown().splitlines():
        assert line.partition(" # ")[0] in tested, f"{line!r} is not in orders.conf, behind the lines before it"


@pytest.mark.parametrize("piece", PIECES_TO_START.values(), ids=PIECES_TO_START)
def test_without_this_piece_nginx_does_not_start(piece: str, tmp_path: Path) -> None:
    with nginx_with(without(piece), tmp_path, {}) as nginx:
        until(lambda: nginx.process.poll() is not None)
        assert "[emerg]" in nginx.output


@pytest.mark.parametrize(
    ("text", "status"), [(shown(), 503), (without(r"include wxauth/server.conf; .*?\n"), 500)], ids=["whole", "without"]
)
def test_without_server_conf_every_path_is_500_and_with_it_asks_wxauth(tmp_path: Path, text: str, status: int) -> None:
    port, nobody = free_port(), "127.0.0.1:1"
    addresses = {"127.0.0.1:8080": f"127.0.0.1:{port}", "127.0.0.1:8000": nobody, "127.0.0.1:9000": nobody}
    with nginx_with(text, tmp_path, addresses) as nginx:
        until(lambda: is_served(port) or nginx.process.poll() is not None)
        assert nginx.process.poll() is None, nginx.output
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client:
            assert [client.get(path).status_code for path in ("/", "/orders", "/admin")] == [status] * 3
