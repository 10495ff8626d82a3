"""Small apps behind the guard, which several test files use."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Union

from fastapi import Depends, FastAPI, WebSocket
from starlette.types import ASGIApp, Receive, Scope, Send

from wxauth_guard import BearerGuard, BearerMiddleware, Principal


def fastapi_app(guard: BearerGuard, *, roles: Union[str, Sequence[str]] = ()) -> ASGIApp:
    app, needed = FastAPI(), [roles] if isinstance(roles, str) else roles
    user_of = guard.require_role(*needed) if needed else guard

    @app.get("/orders")
    async def orders(user: Annotated[Principal, Depends(user_of)]) -> dict[str, str]:
        return {"of": str(user.id)}

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, user: Annotated[Principal, Depends(user_of)]) -> None:
        await websocket.accept()
        await websocket.send_text(user.openid)

    return app


def plain_app(guard: BearerGuard, **options: Any) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        user: Any = scope.get("user")
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": user.openid})
            await send({"type": "websocket.close"})
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        answer = {"of": str(user.id)} if path == "/orders" else "user" if user else "nobody"
        body = answer if isinstance(answer, str) else json.dumps(answer)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})

    return BearerMiddleware(app, guard, **options)


def orders_app(guard: BearerGuard) -> FastAPI:
    """Make a sibling's app with a route for every user and routes that need a role. `/audit` accepts two roles."""
    app = FastAPI()

    @app.get("/orders")
    async def orders(user: Annotated[Principal, Depends(guard)]) -> Principal:
        return user

    @app.delete("/orders/{n}")
    async def erase(n: int, user: Annotated[Principal, Depends(guard.require_role("admin"))]) -> str:
        return f"{n} by {user.openid}"

    @app.get("/audit")
    async def audit(user: Annotated[Principal, Depends(guard.require_role("admin", "auditor"))]) -> dict[str, Any]:
        return {"by": user.openid}

    return app
