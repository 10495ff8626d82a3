"""The command `wxauth-desk dev`, which starts and stops PostgreSQL, WeChat, migrations and the service together."""

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Set
from contextlib import ExitStack, aclosing
from functools import partial
from typing import Any, Final

import click
import uvicorn
from pydantic import SecretStr
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount
from starlette.types import ASGIApp

from wxauth.clients.clients import Credentials
from wxauth.core.database import Database
from wxauth.core.logs import configure_logging
from wxauth.core.migrations import UnknownRevision, migrate
from wxauth.core.outages import is_refusal, reason_of
from wxauth.login.login_queries import rehearse_login
from wxauth.service.app import create_api, surround
from wxauth.service.build import Timeouts, build_services
from wxauth.service.lifespan import check_stored_state
from wxauth.service.server import uvicorn_options
from wxauth.settings.loading import unknown_names
from wxauth.settings.resources import Resource
from wxauth.settings.settings import Settings
from wxauth_desk.agent import MCP_PORT_AFTER, add_agent, create_mcp_server, has_mcp, resource_at
from wxauth_desk.banner import service_url, welcome
from wxauth_desk.failures import failure_on_the_phone
from wxauth_desk.i18n import Text, lazy_gettext as _
from wxauth_desk.middleware import OwnNamesOnly
from wxauth_desk.own_command import command_for_this_dev
from wxauth_desk.own_settings import HOME, REAL_APP_NAMES, environment, load_settings, port_of_environment
from wxauth_desk.ports import Place, Ports
from wxauth_desk.postgres import EmbeddedPostgres
from wxauth_desk.serving import Server, in_thread
from wxauth_desk.signals import handled_by, stop_and_exit
from wxauth_desk.sites import PUSH_PATH, add_shop, add_sites, create_shop, create_site
from wxauth_desk.terminal import TextError, localized, terminal_language
from wxauth_desk.wechat import DESK_PATH, HINTS, SHOP_PATH, UNKNOWN_APP_HINT, create_simulator

_TIMEOUTS: Final = Timeouts(proxy_notice=None)
"""The timeouts of the service. A stop does not wait for proxies, because there are none."""

_WECHAT_PORT_AFTER: Final = 1
"""The difference between the simulated WeChat's port and the service's. WeChat's port is 8001 by default."""
_SITE_PORT_AFTER: Final = 4
"""The difference between the port of the example sites and the service's. The sites' port is 8004 by default."""
_FOREIGN_DATA: Final = _(
    "the database in {home}/ belongs to another version of wxauth. Delete the folder {home}/, which "
    "contains only this machine's data, and start again ({reason})"
)
_FOREIGN_SCHEMA: Final = _("the schema was not created by this version: {reason}")


class ForeignSchema(TextError):
    """The error if the database has a schema that this version did not create."""


def run(
    *,
    port: int | None,
    wechat_port: int | None = None,
    site_port: int | None = None,
    shop_url: str | None = None,
    allowed_hosts: Iterable[str] = (),
) -> None:
    """Run until Ctrl-C or SIGTERM.

    A part without a chosen port listens near the service's port. `shop_url` is the back end that the shop's
    mini-program calls, if it is not the example. All parts also answer to the host names in `allowed_hosts`.

    Raises: TextError, StorageUnavailable.
    """
    has_database = "WXAUTH_DATABASE_URL" in environment()
    try:
        # The threads end first, so that no part loses its database or its socket while it still answers.
        with ExitStack() as stack, ExitStack() as threads:
            stack.enter_context(handled_by(partial(stop_and_exit, stack)))
            default_port = Settings.model_fields["port"].default
            ports = Ports(stack, port or port_of_environment() or default_port, {wechat_port, site_port})
            is_simulated = environment().keys().isdisjoint(REAL_APP_NAMES)
            wechat = ports.open(_WECHAT_PORT_AFTER, wechat_port, option="--wechat-port") if is_simulated else None
            sites = ports.open(_SITE_PORT_AFTER, site_port, option="--site-port")
            shop_url = (shop_url or sites.url + SHOP_PATH).rstrip("/")

            simulated_url = None if wechat is None else wechat.url
            own = load_settings(simulated_url, port, push_forward=shop_url + PUSH_PATH)
            settings = own.settings
            configure_logging(level=settings.log_level, log_format=settings.log_format)
            for line in unknown_names(env_file=None):
                click.echo(localized(line), err=True)
            listener = ports.open_service(settings.host, settings.port)
            ports.check()
            # The MCP server's port is opened after the check, because only chosen ports and the service's can fail.
            mcp = _open_mcp_port(ports) if is_simulated and not settings.resources and has_mcp() else None
            mcp_url = None if mcp is None else mcp.url
            if mcp_url is not None:
                settings = settings.model_copy(update={"resources": (Resource(**resource_at(mcp_url)),)})
            if not has_database:
                settings = settings.model_copy(update={"database_url": _start_postgres(stack)})

            host_names = {*allowed_hosts, settings.host.lower(), URL(settings.issuer).hostname or ""}
            if wechat is not None:
                _start_wechat(
                    threads, wechat, settings, host_names, site_url=sites.url, shop_url=shop_url, mcp_url=mcp_url
                )
            shop = asyncio.run(_prepare(settings, sites.url, has_shop=is_simulated, mcp_url=mcp_url))
            command_settings = _settings_of_command(own.set_by_dev, settings, mcp_url)
            stack.enter_context(command_for_this_dev(HOME, command_settings))
            _start_sites(threads, sites, settings, host_names, shop)
            if mcp is not None:
                _start_mcp(threads, mcp, settings, host_names)

            text = welcome(
                settings,
                simulated_url=simulated_url,
                site_url=sites.url,
                mcp_url=mcp_url,
                findings=own.findings,
                home=HOME,
                language=terminal_language(),
            )
            service = OwnNamesOnly(_service(settings, simulated_url), host_names)
            Server(uvicorn.Config(service, **uvicorn_options()), text).run([listener])
    except (UnknownRevision, ForeignSchema) as exc:
        if has_database:
            raise
        raise TextError(Text(_FOREIGN_DATA, home=HOME, reason=exc.text)) from None


def _open_mcp_port(ports: Ports) -> Place:
    """Open the port of the MCP server. The returned URL is the server's resource."""
    place = ports.open(MCP_PORT_AFTER)
    return place._replace(url=f"{place.url}/mcp")


def _start_postgres(stack: ExitStack) -> SecretStr:
    """Start the PostgreSQL in `HOME`, which `stack` stops, and return its URL. Raises: TextError."""
    postgres = EmbeddedPostgres(HOME / "postgres")
    stack.push(postgres)  # pushed before it starts, so that a signal during the start stops it, too
    return SecretStr(stack.enter_context(postgres).url())


def _start_wechat(
    threads: ExitStack,
    wechat: Place,
    settings: Settings,
    host_names: Set[str],
    *,
    site_url: str,
    shop_url: str,
    mcp_url: str | None,
) -> None:
    """Start the simulated WeChat in a thread."""
    simulator = create_simulator(
        service_url=service_url(settings),
        site_url=site_url,
        shop_url=shop_url,
        mcp_url=mcp_url,
        failure_of=failure_on_the_phone,
    )
    app = OwnNamesOnly(simulator, host_names, own_pages_only=True)
    threads.enter_context(in_thread(app, wechat.listener, name="simulated WeChat"))


def _start_sites(
    threads: ExitStack, sites: Place, settings: Settings, host_names: Set[str], shop: Credentials | None
) -> None:
    """Start the example sites in a thread, with the shop's back end if there are credentials for it."""
    back_end = [Mount(SHOP_PATH, create_shop(settings.issuer, shop))] if shop else []
    cookie_secret = secrets.token_hex()
    app = create_site(settings.issuer, url=sites.url, cookie_secret=cookie_secret, back_end=back_end)
    threads.enter_context(in_thread(OwnNamesOnly(app, host_names), sites.listener, name="example sites"))


def _start_mcp(threads: ExitStack, mcp: Place, settings: Settings, host_names: Set[str]) -> None:
    """Start the MCP server in a thread.

    The thread imports the MCP server, which takes seconds, so that the service need not wait for it.
    """
    create_app = partial(create_mcp_server, settings.issuer, mcp.url, host_names)
    threads.enter_context(in_thread(create_app, mcp.listener, name="MCP server", is_factory=True))


def _settings_of_command(set_by_dev: Mapping[str, Any], settings: Settings, mcp_url: str | None) -> dict[str, Any]:
    """Return the settings that the command `HOME/wxauth` needs in order to work on the running service.

    `set_by_dev` lacks the final values of some of them, because `dev` finds these values only during its start.
    """
    found = {"issuer": settings.issuer, "database_url": settings.database_url.get_secret_value()}
    resources = {} if mcp_url is None else {"resources": [resource_at(mcp_url)]}
    return {**set_by_dev, **found, **resources}


async def _prepare(settings: Settings, site_url: str, *, has_shop: bool, mcp_url: str | None) -> Credentials | None:
    """Migrate the database, and add the example sites, the agent and the shop.

    Return the credentials of the shop's back end; None without `has_shop`. Raises: ForeignSchema, StorageUnavailable,
    and the errors of `check_stored_state`.
    """
    database = Database(settings.database_url.get_secret_value())
    async with aclosing(database):
        try:
            await migrate(database)
        except Exception as exc:
            cause = getattr(exc, "driver_exception", exc)  # SQLAlchemy's errors contain PostgreSQL's error there
            if is_refusal(cause):
                raise ForeignSchema(Text(_FOREIGN_SCHEMA, reason=reason_of(cause))) from exc
            raise
        if (reason := await rehearse_login(database, now=await database.time())) is not None:
            raise ForeignSchema(Text(_FOREIGN_SCHEMA, reason=reason))
        async with aclosing(build_services(settings)) as services:
            await check_stored_state(services)
        await add_sites(database, site_url, settings, now=await database.time())
        if mcp_url is not None:
            await add_agent(database, mcp_url, now=await database.time())
        return await add_shop(database, now=await database.time()) if has_shop else None


def _service(settings: Settings, simulated_url: str | None) -> ASGIApp:
    """Return the service as an ASGI app. Its `/` redirects to the desk or, with the real WeChat, to `/docs`."""
    if simulated_url is None:
        services, example_code = build_services(settings, timeouts=_TIMEOUTS), None
        front_page_url = f"{service_url(settings)}/docs"
    else:
        hints: dict[str, Any] = {"errcode_hints": HINTS, "unknown_app_hint": UNKNOWN_APP_HINT}
        services, example_code = build_services(settings, timeouts=_TIMEOUTS, **hints), "alice"
        front_page_url = f"{simulated_url}{DESK_PATH}"

    async def front_page(_: Request) -> Response:
        return RedirectResponse(front_page_url)

    api = create_api(services, example_code=example_code)
    api.add_route("/", front_page, include_in_schema=False)
    return surround(api, services)
