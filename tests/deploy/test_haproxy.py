"""HAProxy stands in front of two replicas, also with the limits that `deploy/kubernetes` gives to its controller."""

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.deploy.conftest import Replicas, restart_in_turn
from tests.deploy.manifests import haproxy_of_the_controller
from tests.processes import PATIENCE, Running, free_port, is_served, until
from tests.programs import needs
from tests.proxies.longest import add_site, check_longest
from wxauth.core.services import Services

pytestmark = pytest.mark.proxy

CONFIGURATION = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout http-request 30s
    {option}
listen wxauth
    bind 127.0.0.1:{port}
    http-reuse safe
    server one {addresses[0]} {check}
    server two {addresses[1]} {check}
"""


@pytest.mark.parametrize(
    ("option", "check"),
    [("option httpchk GET /readyz", "check inter 500ms fall 1 rise 1"), ("option redispatch 1", "")],
    ids=["checks /readyz", "repeats what it could not connect for"],
)
def test_replicas_restarted_in_turn_fail_no_request(
    replicas: Replicas, tmp_path: Path, option: str, check: str
) -> None:
    port = free_port()
    text = CONFIGURATION.format(port=port, addresses=replicas.addresses, option=option, check=check)
    (tmp_path / "haproxy.cfg").write_text(text)
    with Running(needs("haproxy"), "-db", "-f", str(tmp_path / "haproxy.cfg"), cwd=tmp_path) as command:
        until(lambda: is_served(port) or command.process.poll() is not None)
        assert command.process.poll() is None, command.output
        seen = restart_in_turn(
            replicas, lambda: httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE)
        )
    assert set(seen) == {"200"}, seen


async def test_in_kubernetes_the_longest_request_of_a_site_comes_back_whole(
    replicas: Replicas, services: Services, tmp_path: Path
) -> None:
    await add_site(services)
    port = free_port()
    (tmp_path / "haproxy.cfg").write_text(haproxy_of_the_controller(port, replicas.addresses[0]))
    with Running(needs("haproxy"), "-db", "-f", str(tmp_path / "haproxy.cfg"), cwd=tmp_path) as command:
        until(lambda: is_served(port) or command.process.poll() is not None)
        assert command.process.poll() is None, command.output
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE) as client:
            await asyncio.to_thread(check_longest, client)
