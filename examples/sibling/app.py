"""Orders: a service that lets in whom wxauth knows."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from wxauth.guard import BearerGuard, Principal

guard = BearerGuard(issuer=os.environ.get("WXAUTH_ISSUER", "http://127.0.0.1:8000"))
app = FastAPI(title="Orders")


@app.get("/orders")
async def orders(user: Annotated[Principal, Depends(guard)]) -> list[dict[str, str]]:
    return [{"item": "oolong tea", "for": user.openid}]
