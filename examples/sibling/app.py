"""Orders: a service for users of wxauth."""

import asyncio
import os
import time
from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket

from wxauth_guard import BearerGuard, Principal

guard = BearerGuard(issuer=os.environ.get("WXAUTH_ISSUER", "http://127.0.0.1:8000"))
app = FastAPI(title="Orders")


@app.get("/orders")
async def orders(user: Annotated[Principal, Depends(guard)]) -> list[dict[str, str]]:
    return [{"item": "oolong tea", "for": user.openid}]


@app.websocket("/orders/live")
async def live_orders(websocket: WebSocket, user: Annotated[Principal, Depends(guard)]) -> None:
    await websocket.accept()
    try:
        # The guard checks the token only at the handshake, so the connection ends when the token expires.
        async with asyncio.timeout(user.claims["exp"] - time.time()):
            async for item in websocket.iter_text():
                await websocket.send_json({"item": item, "for": user.openid})
    except TimeoutError:
        await websocket.close(1008, "token_expired")
