from sanic import Sanic, empty, json, raw

from wxauth.guard import BearerGuard, WxAuthError, problem, require_roles

guard = BearerGuard(issuer="http://127.0.0.1:8000")
app = Sanic("orders")
app.error_handler.add(WxAuthError, lambda request, refusal: raw(*problem(refusal, request.headers)))


@app.on_request
async def authenticate(request):
    request.ctx.user = await guard.verify(guard.bearer_token(*request.headers.getall("Authorization", ())))


@app.get("/orders")
async def orders(request):
    return json({"user": str(request.ctx.user.id), "openid": request.ctx.user.openid})


@app.delete("/orders/<number:int>")
async def erase(request, number):
    require_roles(request.ctx.user, "clerk")
    return empty()
