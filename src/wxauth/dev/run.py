"""`wxauth dev`: Postgres, WeChat, migrations and the service, together, gone together."""

import asyncio
import base64
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import uvicorn

from wxauth.app import create_app
from wxauth.dev.postgres import EmbeddedPostgres, PostgresUnavailable
from wxauth.dev.wechat import APPS, create_simulator
from wxauth.errors import StorageUnavailable
from wxauth.logs import configure_logging
from wxauth.server import leave, uvicorn_options
from wxauth.services import Services
from wxauth.settings import InvalidSettings, Settings, settings_from
from wxauth.store.database import Database
from wxauth.store.migrations import migrate

HOME: Final = Path(".wxauth")

_WELCOME = """
wxauth is ready.  已就绪。

  API docs / 接口文档    {url}/docs
  WeChat / 模拟微信      {wechat_url}
                        Any plain name is a code, the same person each time. 任意名字即 code,同名即同一用户。

Log in as alice / 以 alice 登录:

  curl -s {url}/v1/login -H 'Content-Type: application/json' -d '{{"code":"alice"}}'

Use the token / 使用令牌:

  TOKEN=$(curl -s {url}/v1/login -H 'Content-Type: application/json' -d '{{"code":"alice"}}' \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
  curl -s {url}/v1/me -H "Authorization: Bearer $TOKEN"

Ctrl-C ends it all; the data stays in {home}/. 按 Ctrl-C 停止,数据保留在 {home}/。
"""


class DevFailed(Exception):
    """The development service cannot start; the text says what to do."""


def run(*, port: int | None, wechat_port: int) -> None:
    """Run until Ctrl-C or SIGTERM. Raises: DevFailed."""
    signal.signal(signal.SIGTERM, leave)
    try:
        with _database_url() as database_url, _simulator(wechat_port) as wechat_url:
            settings = _settings(database_url, wechat_url, port)
            configure_logging(level=settings.log_level, log_format=settings.log_format)
            asyncio.run(migrate(Database(database_url)))
            _serve(settings, wechat_url)
    except (PostgresUnavailable, InvalidSettings) as exc:
        raise DevFailed(str(exc)) from None
    except StorageUnavailable as exc:
        raise DevFailed(f"WXAUTH_DATABASE_URL: {exc.detail}") from None


@contextmanager
def _database_url() -> Iterator[str]:
    given = os.environ.get("WXAUTH_DATABASE_URL")
    if given:
        yield given
        return
    with EmbeddedPostgres(HOME / "postgres") as postgres:
        yield postgres.url()


@contextmanager
def _simulator(port: int) -> Iterator[str]:
    _check_port(port, "--wechat-port")
    server = uvicorn.Server(
        uvicorn.Config(create_simulator(), host="127.0.0.1", port=port, log_config=None, access_log=False)
    )
    thread = threading.Thread(target=server.run, name="simulated WeChat", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=5)


def _settings(database_url: str, wechat_url: str, port: int | None) -> Settings:
    port_number = port or int(os.environ.get("WXAUTH_PORT", "8000"))
    given = {name.removeprefix("WXAUTH_").lower() for name in os.environ if name.startswith("WXAUTH_")}
    defaults = {
        "issuer": f"http://127.0.0.1:{port_number}",
        "secret_key": _secret_key(),
        "log_level": "warning",
    }
    return settings_from(
        Settings,
        database_url=database_url,
        apps=APPS,
        app_id=None,
        app_secret=None,
        wechat_base_url=wechat_url,
        wechat_fallback_url=None,
        port=port_number,
        workers=1,
        **{name: value for name, value in defaults.items() if name not in given},
    )


def _secret_key() -> str:
    """Made once, beside the data that it seals."""
    HOME.mkdir(mode=0o700, exist_ok=True)
    path = HOME / "secret_key"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(base64.b64encode(secrets.token_bytes(32)).decode())
    return path.read_text().strip()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, welcome: str) -> None:
        super().__init__(config)
        self._welcome = welcome

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            click.echo(self._welcome)


def _serve(settings: Settings, wechat_url: str) -> None:
    _check_port(settings.port, "--port")
    app = create_app(Services.build(settings))
    welcome = _WELCOME.format(url=f"http://127.0.0.1:{settings.port}", wechat_url=wechat_url, home=HOME)
    try:
        _Server(uvicorn.Config(app, **uvicorn_options(settings)), welcome).run()
    except KeyboardInterrupt:
        return


def _check_port(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise DevFailed(f"port {port} is taken; choose another one with {option}") from None
