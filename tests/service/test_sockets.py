"""The service never phones home. The kernel's trace of a run contains no unexpected connection."""

import re
import signal
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.fakes import service_env
from tests.processes import PATIENCE, WXAUTH, Running, free_port, serving, until
from tests.programs import needs
from wxauth_desk.wechat import create_simulator


def connected(trace: Path) -> set[str]:
    """Return the network addresses, as `host:port`, that the processes have connected to or sent data to."""
    lines = [line for line in trace.read_text().splitlines() if "AF_INET" in line]
    found = {re.search(r'htons\((\d+)\).*?"([^"]+)"', line) for line in lines}
    assert None not in found, lines
    return {f"{match[2]}:{match[1]}" for match in found if match}


@pytest.mark.operations
@pytest.mark.own_database
@pytest.mark.requirement("wxauth-sockets")
def test_a_whole_run_connects_to_the_database_and_wechat_and_to_nothing_else(tmp_path: Path, database_url: str) -> None:
    strace, port, trace = needs("strace"), free_port(), tmp_path / "trace"
    record = (strace, "-D", "-f", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace))
    with serving(create_simulator()) as wechat_url:
        env = service_env(database_url, wechat_base_url=wechat_url, port=port, admin_page="true")
        with Running(*record, WXAUTH, "serve", cwd=tmp_path, env=env) as service:
            service.wait_for('"started"')
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, verify=False) as client:
                tokens = client.post("/v1/login", json={"code": "alice", "nickname": "Alice"}).json()
                bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
                for path in ("/v1/me", "/v1/verify", "/v1/me/sessions", "/docs", "/admin/", "/metrics", "/readyz"):
                    assert client.get(path, headers=bearer, follow_redirects=True).status_code == 200, path
                client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
            service.end(signal.SIGTERM)
            ended = re.compile(rf"^{service.process.pid} *\+\+\+ ", re.M)  # strace pads short process ids
            until(lambda: ended.search(trace.read_text()))
            found = connected(trace)
    assert urlsplit(wechat_url).netloc in found
    assert found <= {urlsplit(url).netloc.rpartition("@")[2] for url in (database_url, wechat_url)}
