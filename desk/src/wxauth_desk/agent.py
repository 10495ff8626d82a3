"""The example MCP server, and the desk's agent, which calls this server for users who have granted the agent access."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.util import find_spec
from runpy import run_path
from typing import Any, Final

from starlette.types import ASGIApp

from wxauth.clients.clients import ensure_own_client
from wxauth.core.database import Database
from wxauth_desk.clone import shared_file
from wxauth_desk.i18n import lazy_gettext as _
from wxauth_desk.middleware import OwnNamesOnly
from wxauth_desk.terminal import localized
from wxauth_desk.wechat import AGENT_CLIENT_ID, AGENT_PATH

MCP_PORT_OFFSET: Final = 5  # from the service's port, so 8005 by default


def has_mcp() -> bool:
    """Return whether version 2 of the official MCP SDK is installed. Only this version has `mcp_types`."""
    return find_spec("mcp") is not None and find_spec("mcp_types") is not None


def resource_at(url: str) -> Mapping[str, Any]:
    """Return the MCP server at this URL as an entry of the setting `RESOURCES`.

    The phone shows the titles when it asks the user whether a client may use the server. They are those in
    docs/build/agents.md, and are always in Chinese.
    """
    scope_titles = {"orders:read": "查看你的订单", "orders:write": "替你下单、退单"}
    return {"resource": url, "title": "小店助手", "scopes": scope_titles}


async def add_agent(database: Database, url: str, *, now: datetime) -> None:
    """Add or replace the desk's agent, a public client, which can request access to the MCP server at this URL."""
    await ensure_own_client(
        database,
        AGENT_CLIENT_ID,
        title=localized(_("Desk agent")),
        redirect_uris=[f"http://127.0.0.1{AGENT_PATH}"],  # without a port, because wxauth ignores a loopback URI's port
        resources=[url],
        scopes=["openid"],  # besides the MCP server's own scopes, which each client of the server may request
        now=now,
    )


def create_mcp_server(issuer: str, url: str, host_names: Iterable[str]) -> ASGIApp:
    """Return the MCP server at this URL as an ASGI app. It responds only to `host_names` and the names of this machine.

    This function imports the server, which takes seconds.
    """
    server_module = run_path(str(shared_file("examples/mcp/server.py", name_in_wheel="mcp_server.py")))
    return OwnNamesOnly(server_module["create_server"]({"RESOURCE": url, "WXAUTH_ISSUER": issuer}), host_names)
