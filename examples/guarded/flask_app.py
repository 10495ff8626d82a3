from flask import Flask, request

from wxauth.guard import BearerGuard, BearerWSGIMiddleware, WxAuthError, problem, require_roles

guard = BearerGuard(issuer="http://127.0.0.1:8000")
app = Flask(__name__)
app.wsgi_app = BearerWSGIMiddleware(app.wsgi_app, guard, public=["/healthz"])
app.register_error_handler(WxAuthError, lambda refusal: problem(refusal, request.headers))


@app.get("/orders")
def orders():
    user = request.environ["wxauth.user"]
    return {"user": str(user.id), "openid": user.openid}


@app.delete("/orders/<int:number>")
def erase(number):
    require_roles(request.environ["wxauth.user"], "clerk")
    return "", 204
