"""The command `wxauth-desk dev`, which starts and stops all its parts together.

The parts are PostgreSQL, the simulated WeChat, the example sites, the MCP server and the service.
"""

import asyncio
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import click
import uvicorn
from pydantic import SecretStr
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from wxauth.checks.result import CheckResult
from wxauth.clients.clients import Credentials
from wxauth.console.links import CONSOLE_PATH
from wxauth.core.database import Database
from wxauth.core.logs import configure_logging
from wxauth.core.migrations import MigrationImpossible, migrate
from wxauth.core.outages import is_refusal, reason_of
from wxauth.login.login_queries import rehearse_login
from wxauth.service.app import create_api, with_middleware
from wxauth.service.build import Timeouts, build_services
from wxauth.service.lifespan import check_stored_state
from wxauth.service.server import uvicorn_options
from wxauth.settings.loading import setting_faults
from wxauth.settings.resources import Resource
from wxauth.settings.settings import Settings
from wxauth_desk.agent import MCP_PORT_OFFSET, add_agent, create_mcp_server, has_mcp, resource_at
from wxauth_desk.banner import service_url, welcome
from wxauth_desk.failures import failure_on_the_phone
from wxauth_desk.i18n import Text, lazy_gettext as _
from wxauth_desk.middleware import OwnNamesOnly
from wxauth_desk.own_command import command_for_this_dev
from wxauth_desk.own_settings import HOME, REAL_APP_NAMES, environment, load_settings, port_of_environment
from wxauth_desk.ports import Place, Ports
from wxauth_desk.postgres import EmbeddedPostgres
from wxauth_desk.serving import Server, in_thread
from wxauth_desk.shop_back_end import PUSH_PATH, add_shop_client, create_shop_back_end
from wxauth_desk.signals import handled_by, stop_and_exit
from wxauth_desk.sites import add_sites, create_sites
from wxauth_desk.terminal import TextError, localized, terminal_language
from wxauth_desk.watched import Watched
from wxauth_desk.wechat import DESK_PATH, HINTS, SHOP_PATH, UNKNOWN_APP_HINT, CallRecord, Surroundings, create_simulator

_TIMEOUTS: Final = Timeouts(proxy_notice=None)  # a stop waits for no proxies, because there are none
_WECHAT_PORT_OFFSET: Final = 1  # from the service's port, so 8001 by default
_SITE_PORT_OFFSET: Final = 4  # from the service's port, so 8004 by default
_FOREIGN_DATA: Final = _(
    "the database in {home}/ belongs to another version of wxauth. Delete the folder {home}/, which "
    "contains only this machine's data, and start again ({reason})"
)
_FOREIGN_SCHEMA: Final = _("the schema was not created by this version: {reason}")


class ForeignSchema(TextError):
    """The error for a database with a schema that this version did not create."""


def run(
    *,
    port: int | None,
    wechat_port: int | None = None,
    site_port: int | None = None,
    shop_url: str | None = None,
    allowed_hosts: Iterable[str] = (),
) -> None:
    """Run all parts of `wxauth-desk dev` until Ctrl-C or SIGTERM.

    A part without a chosen port listens near the service's port. `shop_url` is the URL of the back end that the shop's
    mini-program calls. By default, it is the URL of the example back end. All parts also respond to the host names in
    `allowed_hosts`.

    Raises: TextError, InvalidSettings, StorageUnavailable; the errors of `migrate`, if `WXAUTH_DATABASE_URL` names a
        database that this version cannot migrate.
    """
    is_database_given = "WXAUTH_DATABASE_URL" in environment()
    try:
        # The threads end first, so that no part loses its database or its socket while it still answers.
        with ExitStack() as stack, ExitStack() as threads:
            stack.enter_context(handled_by(partial(stop_and_exit, stack)))
            parts = _open_parts(
                stack,
                port=port,
                wechat_port=wechat_port,
                site_port=site_port,
                shop_url=shop_url,
                allowed_hosts=allowed_hosts,
            )
            if not is_database_given:
                settings = parts.settings.model_copy(update={"database_url": _start_postgres(stack)})
                parts = replace(parts, settings=settings)
            call_record = CallRecord()
            if parts.wechat is not None:
                _start_wechat(threads, parts, parts.wechat, call_record)
            shop_credentials = asyncio.run(_prepare_database(parts))
            stack.enter_context(command_for_this_dev(HOME, _settings_of_command(parts)))
            _start_sites(threads, parts, shop_credentials)
            if parts.mcp is not None:
                _start_mcp(threads, parts, parts.mcp)
            service = _create_service(parts.settings, parts.simulated_url)
            if parts.wechat is not None:
                service = Watched(service, call_record)
            service = OwnNamesOnly(service, parts.host_names)
            Server(uvicorn.Config(service, **uvicorn_options()), _welcome(parts)).run([parts.service_listener])
    except (MigrationImpossible, ForeignSchema) as exc:
        if is_database_given:
            raise
        raise TextError(Text(_FOREIGN_DATA, home=HOME, reason=exc.text)) from None


@dataclass(frozen=True, slots=True)
class _Parts:
    """The values that `dev` has determined before its parts start."""

    settings: Settings
    set_by_dev: Mapping[str, Any]  # without values that it learns later, such as the URL of the database
    findings: Sequence[CheckResult]  # of the checks with the real WeChat
    service_listener: socket.socket
    wechat: Place | None  # None with the real WeChat
    sites: Place
    mcp: Place | None  # with the URL of the resource; None without an MCP server
    shop_url: str
    host_names: Set[str]  # besides the names of this machine

    @property
    def simulated_url(self) -> str | None:
        """The URL of the simulated WeChat; None with the real WeChat."""
        return None if self.wechat is None else self.wechat.url

    @property
    def mcp_url(self) -> str | None:
        return None if self.mcp is None else self.mcp.url


def _open_parts(
    stack: ExitStack,
    *,
    port: int | None,
    wechat_port: int | None,
    site_port: int | None,
    shop_url: str | None,
    allowed_hosts: Iterable[str],
) -> _Parts:
    """Open the ports of all parts, which `stack` closes, and load the settings, which contain URLs of these parts."""
    default_port = Settings.model_fields["port"].default
    reserved = {chosen for chosen in (wechat_port, site_port) if chosen is not None}
    ports = Ports(stack, port or port_of_environment() or default_port, reserved)
    is_simulated = environment().keys().isdisjoint(REAL_APP_NAMES)
    wechat = ports.open(_WECHAT_PORT_OFFSET, wechat_port, option="--wechat-port") if is_simulated else None
    sites = ports.open(_SITE_PORT_OFFSET, site_port, option="--site-port")
    shop_url = (shop_url or sites.url + SHOP_PATH).rstrip("/")
    loaded = load_settings(None if wechat is None else wechat.url, port, push_forward=shop_url + PUSH_PATH)
    settings = loaded.settings
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    for fault in setting_faults(env_file=None):
        click.echo(localized(fault), err=True)
    service_listener = ports.open_service(settings.host, settings.port)
    ports.check()
    # The MCP server's port may be opened after the check, because nobody can choose this port, and `check` reports only
    # chosen ports and the service's.
    # Without the simulated WeChat, there is no MCP server, because its agent is on the page of the simulated phone.
    mcp = _open_mcp(ports, settings) if is_simulated else None
    if mcp is not None:
        settings = settings.model_copy(update={"resources": (Resource(**resource_at(mcp.url)),)})
    host_names = {*allowed_hosts, settings.host.lower(), URL(settings.issuer).hostname or ""}
    return _Parts(
        settings=settings,
        set_by_dev=loaded.set_by_dev,
        findings=loaded.findings,
        service_listener=service_listener,
        wechat=wechat,
        sites=sites,
        mcp=mcp,
        shop_url=shop_url,
        host_names=host_names,
    )


def _open_mcp(ports: Ports, settings: Settings) -> Place | None:
    # If the developer has set resources, there is no MCP server, because its resource would replace them.
    if settings.resources or not has_mcp():
        return None
    place = ports.open(MCP_PORT_OFFSET)
    return Place(place.listener, f"{place.url}/mcp")


def _start_postgres(stack: ExitStack) -> SecretStr:
    postgres = EmbeddedPostgres(HOME / "postgres")
    # `postgres` is pushed before it starts, so that a signal during the start stops it, too. `enter_context` pushes it
    # a second time, which is harmless, because PostgreSQL is stopped only once.
    stack.push(postgres)
    return SecretStr(stack.enter_context(postgres).url())


def _start_wechat(threads: ExitStack, parts: _Parts, wechat: Place, call_record: CallRecord) -> None:
    console_url = f"{service_url(parts.settings)}{CONSOLE_PATH}" if parts.settings.admin_page else None
    around = Surroundings(
        service_url=service_url(parts.settings),
        site_url=parts.sites.url,
        shop_url=parts.shop_url,
        mcp_url=parts.mcp_url,
        console_url=console_url,
        failure_of=failure_on_the_phone,
    )
    simulator = create_simulator(around=around, call_record=call_record)
    app = OwnNamesOnly(simulator, parts.host_names, own_pages_only=True)
    threads.enter_context(in_thread(lambda: app, wechat.listener, name="simulated WeChat"))


def _start_sites(threads: ExitStack, parts: _Parts, shop_credentials: Credentials | None) -> None:
    issuer, sites = parts.settings.issuer, parts.sites
    back_end = [Mount(SHOP_PATH, create_shop_back_end(issuer, shop_credentials))] if shop_credentials else []
    websites = create_sites(issuer, url=sites.url, cookie_secret=secrets.token_hex(), back_end=back_end)
    app = OwnNamesOnly(websites, parts.host_names)
    threads.enter_context(in_thread(lambda: app, sites.listener, name="example sites"))


def _start_mcp(threads: ExitStack, parts: _Parts, mcp: Place) -> None:
    # The thread imports the MCP server, which takes seconds, so that the service need not wait for the import.
    create_app = partial(create_mcp_server, parts.settings.issuer, mcp.url, parts.host_names)
    threads.enter_context(in_thread(create_app, mcp.listener, name="MCP server"))


def _settings_of_command(parts: _Parts) -> dict[str, Any]:
    database_url = parts.settings.database_url.get_secret_value()
    values = {**parts.set_by_dev, "issuer": parts.settings.issuer, "database_url": database_url}
    if parts.mcp_url is not None:
        values["resources"] = [resource_at(parts.mcp_url)]
    return values


def _welcome(parts: _Parts) -> str:
    return welcome(
        parts.settings,
        simulated_url=parts.simulated_url,
        site_url=parts.sites.url,
        mcp_url=parts.mcp_url,
        findings=parts.findings,
        home=HOME,
        language=terminal_language(),
    )


async def _prepare_database(parts: _Parts) -> Credentials | None:
    """Migrate the database, and add the clients of the sites, the agent and the shop. Return the shop's credentials."""
    settings = parts.settings
    database = Database(settings.database_url.get_secret_value())
    async with aclosing(database):
        await _migrate_and_try_login(database)
        async with aclosing(build_services(settings)) as services:
            await check_stored_state(services)
        await add_sites(database, parts.sites.url, settings, now=await database.time())
        if parts.mcp_url is not None:
            await add_agent(database, parts.mcp_url, now=await database.time())
        return None if parts.wechat is None else await add_shop_client(database, now=await database.time())


async def _migrate_and_try_login(database: Database) -> None:
    try:
        await migrate(database)
    except Exception as exc:
        cause = getattr(exc, "driver_exception", exc)  # SQLAlchemy's errors contain PostgreSQL's error there
        if is_refusal(cause):
            raise ForeignSchema(Text(_FOREIGN_SCHEMA, reason=reason_of(cause))) from exc
        raise
    if (reason := await rehearse_login(database, now=await database.time())) is not None:
        raise ForeignSchema(Text(_FOREIGN_SCHEMA, reason=reason))


def _create_service(settings: Settings, simulated_url: str | None) -> ASGIApp:
    if simulated_url is None:
        services = build_services(settings, timeouts=_TIMEOUTS)
        example_code = None
        front_page_url = f"{service_url(settings)}/docs"
    else:
        services = build_services(settings, timeouts=_TIMEOUTS, errcode_hints=HINTS, unknown_app_hint=UNKNOWN_APP_HINT)
        example_code = "alice"  # for the simulated WeChat, any plain name is a login code
        front_page_url = f"{simulated_url}{DESK_PATH}"

    async def front_page(_request: Request) -> Response:
        return RedirectResponse(front_page_url)

    api = create_api(services, example_code=example_code)
    api.router.routes.insert(0, Route("/", front_page, include_in_schema=False))  # instead of the service's own page
    return with_middleware(api, services)
