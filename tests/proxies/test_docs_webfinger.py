"""The page about Tailscale shows configurations with which nginx and Caddy tell Tailscale the issuer."""

from pathlib import Path
from textwrap import dedent

import httpx
import pytest

from tests.docs import ROOT, code_blocks
from tests.processes import Running, free_port, is_served, until
from tests.programs import needs
from tests.proxies.running import nginx_with

pytestmark = pytest.mark.proxy
PATH = "/.well-known/webfinger"


def shown(language: str) -> str:
    [text] = code_blocks(ROOT / "docs/build/openid/tailscale.md", language)
    return dedent(text)


@pytest.mark.parametrize("name", ["nginx", "caddy"])
def test_the_web_server_of_the_addresses_names_the_issuer(tmp_path: Path, name: str) -> None:
    port = free_port()
    if name == "nginx":
        command = nginx_with(f"server {{ listen 127.0.0.1:{port};\n{shown('nginx')}\n}}\n", tmp_path, {})
    else:
        (tmp_path / "Caddyfile").write_text(f"{{\nadmin off\n}}\nhttp://127.0.0.1:{port} {{\n{shown('caddy')}\n}}\n")
        command = Running(needs("caddy"), "run", "--config", "Caddyfile", "--adapter", "caddyfile", cwd=tmp_path)
    with command as server:
        until(lambda: is_served(port) or server.process.poll() is not None)
        assert server.process.poll() is None, server.output
        resource = {"resource": "acct:USER_ID@users.example.com", "rel": "http://openid.net/specs/connect/1.0/issuer"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            answer = client.get(PATH, params=resource)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jrd+json")
    assert answer.json()["subject"] == resource["resource"]
    [link] = answer.json()["links"]
    assert link == {"rel": resource["rel"], "href": "https://auth.example.com"}
