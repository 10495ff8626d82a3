"""`wxauth dev`: Postgres, WeChat, migrations and the service, together, gone together."""

import asyncio
import base64
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import uvicorn
from pydantic import SecretStr

from wxauth.core.database import Database, reason_of
from wxauth.core.logs import configure_logging
from wxauth.core.migrations import MigrationBlocked, UnknownRevision, migrate
from wxauth.core.settings import InvalidSettings, Settings, settings_from, unknown_names
from wxauth.dev.postgres import EmbeddedPostgres, PostgresUnavailable
from wxauth.dev.wechat import APPS, OwnPagesOnly, create_simulator
from wxauth.errors import StorageUnavailable
from wxauth.service.app import create_app
from wxauth.service.build import build_services
from wxauth.service.server import check_secret_key, leave, listen, uvicorn_options
from wxauth.web.http_server import Server

HOME: Final = Path(".wxauth")

WELCOME = """
wxauth is ready.  已就绪。

  API docs / 接口文档    {url}/docs
  Phone / 桌上的手机     {wechat_url}/desk/
                        Log in and see each request, break things. 像手机一样登录，查看每个请求，并让它出错。
  Console / 管理后台     {url}/admin/
  WeChat / 模拟微信      {wechat_url}
                        Any plain name is a code, the same person each time. 任意名字即 code，同名即同一用户。

Log in as alice / 以 alice 登录：

  curl -s {url}/v1/login -H 'Content-Type: application/json' -d '{{"code":"alice"}}'

Use the token / 使用令牌：

  TOKEN=$(curl -s {url}/v1/login -H 'Content-Type: application/json' -d '{{"code":"alice"}}' \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
  curl -s {url}/v1/me -H "Authorization: Bearer $TOKEN"

Become an administrator / 成为管理员：

  {command} users grant USER_ID admin

Open the console / 打开管理后台：

  {command} admin link

Ctrl-C ends it all; the data stays in {home}/. 按 Ctrl-C 停止，数据保留在 {home}/。
"""


class DevFailed(Exception):
    """The development service cannot start; the text says what to do."""


def run(*, port: int | None, wechat_port: int) -> None:
    """Run until Ctrl-C or SIGTERM. Raises: DevFailed."""
    signal.signal(signal.SIGTERM, leave)
    wechat_url = f"http://127.0.0.1:{wechat_port}"
    try:
        settings = _settings(wechat_url, port)
        configure_logging(level=settings.log_level, log_format=settings.log_format)
        for line in unknown_names(env_file=None):
            click.echo(line, err=True)
        with (
            _listen(settings.host, settings.port, "--port") as listener,
            _listen("127.0.0.1", wechat_port, "--wechat-port") as wechat_listener,
            _with_database(settings) as settings,
            _simulator(wechat_listener, _url(settings)),
        ):
            asyncio.run(_prepare(settings))
            _serve(settings, listener, wechat_url)
    except (PostgresUnavailable, InvalidSettings, UnknownRevision, MigrationBlocked) as exc:
        raise DevFailed(str(exc)) from None
    except StorageUnavailable as exc:
        raise DevFailed(f"WXAUTH_DATABASE_URL: {exc.detail}: {reason_of(exc)}") from None


def _settings(wechat_url: str, port: int | None) -> Settings:
    """Those that are not the simulator's affair may come from the environment; never from `.env`."""
    given = {name.upper() for name, value in os.environ.items() if value}
    defaults = {
        "database_url": "postgresql://",  # until the embedded one has started
        "secret_key": _secret_key(),
        "log_level": "warning",
        "admin_page": True,
        "cors_origins": wechat_url,  # of the phone on the desk
    }
    fixed = {"apps": APPS, "app_id": None, "app_secret": None, "wechat_base_url": wechat_url}
    asked_for = {} if port is None else {"port": port}
    unset = {name: value for name, value in defaults.items() if f"WXAUTH_{name.upper()}" not in given}
    settings = settings_from(Settings, wechat_fallback_url=None, wechat_proxy=None, **fixed, **asked_for, **unset)
    if "WXAUTH_ISSUER" in given:
        return settings
    return settings.model_copy(update={"issuer": f"http://127.0.0.1:{settings.port}"})


def _secret_key() -> str:
    """Made once, beside the data that it seals."""
    try:
        HOME.mkdir(exist_ok=True)
        (HOME / ".gitignore").write_text("*\n")
        path = HOME / "secret_key"
        if not path.exists():
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(base64.b64encode(secrets.token_bytes(32)).decode())
        return path.read_text().strip()
    except OSError as exc:
        raise DevFailed(f"{exc.filename}: {exc.strerror}") from None


@contextmanager
def _listen(host: str, port: int, option: str) -> Iterator[socket.socket]:
    try:
        listener = listen(host, port)
    except OSError as exc:
        hint = f"another 'wxauth dev'? Choose another port with {option}"
        raise DevFailed(f"cannot listen on {host}:{port}: {exc.strerror} ({hint})") from None
    with listener:
        yield listener


@contextmanager
def _with_database(settings: Settings) -> Iterator[Settings]:
    if os.environ.get("WXAUTH_DATABASE_URL"):
        yield settings
        return
    with EmbeddedPostgres(HOME / "postgres") as postgres:
        yield settings.model_copy(update={"database_url": SecretStr(postgres.url())})


@contextmanager
def _simulator(listener: socket.socket, service_url: str) -> Iterator[None]:
    app = OwnPagesOnly(create_simulator(service_url=service_url))
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="simulated WeChat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=5)


async def _prepare(settings: Settings) -> None:
    await migrate(Database(settings.database_url.get_secret_value()))
    await check_secret_key(settings)


class _Server(Server):
    def __init__(self, config: uvicorn.Config, welcome: str) -> None:
        super().__init__(config)  # and leaves at once: no proxy has to learn of it
        self._welcome = welcome

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        click.echo(self._welcome)


def _serve(settings: Settings, listener: socket.socket, wechat_url: str) -> None:
    app = create_app(build_services(settings))
    welcome = WELCOME.format(url=_url(settings), wechat_url=wechat_url, home=HOME, command=_command(settings))
    try:
        _Server(uvicorn.Config(app, **uvicorn_options()), welcome).run([listener])
    except KeyboardInterrupt:
        return


def _url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - asked for
    return f"http://{host}:{settings.port}"


def _command(settings: Settings) -> str:
    """How to run another command on the same database; one that was given is known, and may hold a password."""
    if os.environ.get("WXAUTH_DATABASE_URL"):
        return sys.argv[0]
    given = {"DATABASE_URL": settings.database_url.get_secret_value(), "ISSUER": settings.issuer, "ADMIN_PAGE": "true"}
    return " ".join([*(f"WXAUTH_{name}='{value}'" for name, value in given.items()), sys.argv[0]])
