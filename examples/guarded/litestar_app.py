from litestar import Litestar, Request, Response, delete, get
from litestar.middleware import DefineMiddleware

from wxauth_guard import BearerGuard, BearerMiddleware, WxAuthError, problem, require_roles

guard = BearerGuard(issuer="http://127.0.0.1:8000")


def users(connection, handler):
    require_roles(connection.user)  # the user is None without a Bearer token


def clerks(connection, handler):
    users(connection, handler)
    require_roles(connection.user, "clerk")


def refuse(request, refusal):
    body, status, headers = problem(refusal, request.headers)
    return Response(body, status_code=status, headers=headers, media_type=headers.pop("Content-Type"))


@get("/orders", guards=[users])
async def orders(request: Request) -> dict[str, str]:
    return {"user": str(request.user.id), "openid": request.user.openid}


@delete("/orders/{number:int}", guards=[clerks])
async def erase() -> None: ...


app = Litestar(
    [orders, erase],
    middleware=[DefineMiddleware(BearerMiddleware, guard=guard, optional=True)],
    exception_handlers={WxAuthError: refuse},
)
