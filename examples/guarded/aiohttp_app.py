from aiohttp import web

from wxauth_guard import BearerGuard, WxAuthError, problem, require_roles

guard = BearerGuard(issuer="http://127.0.0.1:8000")


def guarded(handler, *roles):
    async def guarded_handler(request):
        try:
            user = await guard.verify(guard.bearer_token(*request.headers.getall("Authorization", ())))
            require_roles(user, *roles)
        except WxAuthError as refusal:
            return web.Response(**problem(refusal, request.headers)._asdict())
        return await handler(request, user)

    return guarded_handler


async def orders(request, user):
    return web.json_response({"user": str(user.id), "openid": user.openid})


app = web.Application()
app.add_routes([web.get("/orders", guarded(orders))])
