"""An MCP server whose tools act for the user who approved the agent on their phone."""

import os
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from mcp.server.mcpserver import Context, MCPServer, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from starlette.requests import Request

from wxauth_guard import BearerGuard, BearerMiddleware, InsufficientScope, Principal

SCOPES = ["orders:read", "orders:write"]


def create_server(env: Mapping[str, str] = os.environ) -> BearerMiddleware:
    resource = env.get("RESOURCE", "http://127.0.0.1:8005/mcp")
    guard = BearerGuard(issuer=env.get("WXAUTH_ISSUER", "http://127.0.0.1:8000"), audience=resource)
    server = MCPServer("orders")
    orders: dict[UUID, list[str]] = defaultdict(list)  # in production, use a database

    def with_scope(scope: str) -> Resolve:
        def caller(context: Context[Any, Request]) -> Principal:
            request = context.request_context.request
            assert request is not None  # HTTP transports always set it
            user: Principal = request.user
            try:
                guard.check_scopes(user, scope)
            except InsufficientScope as refusal:
                raise ToolError(refusal.detail) from refusal
            return user

        return Resolve(caller)

    @server.tool()
    def list_orders(user: Annotated[Principal, with_scope("orders:read")]) -> list[str]:
        """The user's orders."""
        return orders[user.id]

    @server.tool()
    def place_order(item: str, user: Annotated[Principal, with_scope("orders:write")]) -> str:
        """Order something for the user."""
        orders[user.id].append(item)
        return f"ordered: {item}"

    # The server has no MCP sessions, because anyone who knows a session's id could use the session. `host` sets which
    # Host headers are accepted.
    host = urlsplit(resource).hostname or ""
    app = server.streamable_http_app(stateless_http=True, streamable_http_path=urlsplit(resource).path, host=host)
    app.routes.append(guard.metadata_route(scopes_supported=SCOPES, resource_name="小店助手"))
    return BearerMiddleware(app, guard)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(create_server(), port=int(os.environ.get("PORT", "8005")))
