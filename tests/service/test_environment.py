"""Environment variables of other programs make neither the service nor a command fail."""

import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clock import PATIENCE
from tests.fakes import service_env
from tests.processes import WXAUTH, Running, free_port, run, serving
from wxauth_desk.wechat import create_simulator

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.own_database]

SOMEBODY_ELSES = {
    "ALEMBIC_CONFIG": "/nowhere",
    "ALL_PROXY": "socks5://127.0.0.1:1",
    "COLUMNS": "-1",
    "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
    "FORWARDED_ALLOW_IPS": "garbage",
    "HOME": "/nowhere",
    "HOST": "nowhere",
    "LC_ALL": "xx_YY.odd",
    "NOTIFY_SOCKET": "/nowhere",
    "NO_COLOR": "1",
    "NO_PROXY": "127.0.0.1,[::,/x,*",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "gar bage",
    "OTEL_EXPORTER_OTLP_HEADERS": "gar bage,,=",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    "OTEL_PROPAGATORS": "b3",
    "OTEL_PYTHON_CONTEXT": "nowhere",
    "OTEL_PYTHON_TRACER_PROVIDER": "nowhere",
    "OTEL_RESOURCE_ATTRIBUTES": "gar,=b%ZZ",
    "OTEL_TRACES_EXPORTER": "console",
    "OTEL_TRACES_SAMPLER": "nonsense",
    "PGCONNECT_TIMEOUT": "abc",
    "PGHOST": "nowhere.invalid",
    "PGPORT": "abc",
    "PORT": "abc",
    "PROMETHEUS_DISABLE_CREATED_SERIES": "odd",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
    "PYTHONASYNCIODEBUG": "1",
    "PYTHONWARNINGS": "error",
    "REDIS_URL": "nowhere",
    "SSLKEYLOGFILE": "/nowhere/keys",
    "SSL_CERT_FILE": "/nowhere",
    "TMPDIR": "/nowhere",
    "TZ": ":::",
    "UVICORN_PORT": "abc",
    "UVICORN_WORKERS": "abc",
    "WEB_CONCURRENCY": "abc",
    "prometheus_multiproc_dir": "/nowhere",
}


@pytest.mark.parametrize(
    ("refused", "workers"),
    [({}, 1), ({"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, 1), ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "abc"}, 2)],
    ids=str,
)
def test_the_service_starts_in_any_environment(
    database_url: str, tmp_path: Path, refused: dict[str, str], workers: int
) -> None:
    port = free_port()
    with serving(create_simulator()) as wechat_url:
        settings: dict[str, Any] = {"workers": workers} | ({"otlp_url": "http://127.0.0.1:1"} if refused else {})
        env = service_env(database_url, wechat_base_url=wechat_url, port=port, **settings) | SOMEBODY_ELSES | refused
        with Running(WXAUTH, "serve", cwd=tmp_path, env=env, is_installed=True) as command:
            command.wait_for('"started"')
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/login", json={"code": "alice"}, timeout=PATIENCE)
            assert answer.status_code == 200, command.output
            assert httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE).status_code == 200, command.output
            assert command.end(signal.SIGTERM) == 0
    assert ("traces_not_sent" in command.output) == bool(refused)
    assert all(name in command.output for name in refused)
    assert "Traceback" not in command.output
    assert '"frames"' not in command.output


def test_commands_run_in_any_environment(database_url: str, tmp_path: Path) -> None:
    env = service_env(database_url, wechat_base_url="http://127.0.0.1:1") | SOMEBODY_ELSES
    for command in ("check", "apps list", "--help"):
        done = run(*command.split(), cwd=tmp_path, env=env)
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        assert "wxauth's own" not in said
        assert done.returncode == int(command == "check"), said
