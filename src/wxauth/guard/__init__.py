"""What a sibling service imports to accept wxauth's access tokens.

guard = BearerGuard(issuer="https://auth.example.com", audience="wxauth")

@app.get("/orders")
async def orders(user: Annotated[Principal, Depends(guard)]): ...

app = BearerMiddleware(app, guard, public=["/healthz"])  # or, for any ASGI app, as middleware
"""

from wxauth.guard.asgi import BearerMiddleware
from wxauth.guard.bearer import BearerGuard
from wxauth.tokens.claims import Principal

__all__ = ["BearerGuard", "BearerMiddleware", "Principal"]
