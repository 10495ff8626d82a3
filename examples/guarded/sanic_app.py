from functools import wraps

from sanic import Sanic, empty, json, raw

from wxauth_guard import BearerGuard, WxAuthError, problem, require_roles

guard = BearerGuard(issuer="http://127.0.0.1:8000")
app = Sanic("orders")
app.error_handler.add(WxAuthError, lambda request, refusal: raw(*problem(refusal, request.headers)))


@app.on_request
async def find_user(request):
    # The user is None without a Bearer token.
    request.ctx.wxauth = await guard.find_user(*request.headers.getall("Authorization", ()))


def guarded(*roles):
    def decorate(handler):
        @wraps(handler)
        async def guarded_handler(request, **captured):
            require_roles(request.ctx.wxauth, *roles)
            return await handler(request, **captured)

        return guarded_handler

    return decorate


@app.get("/orders")
@guarded()
async def orders(request):
    return json({"user": str(request.ctx.wxauth.id), "openid": request.ctx.wxauth.openid})


@app.delete("/orders/<number:int>")
@guarded("clerk")
async def erase(request, number):
    return empty()
