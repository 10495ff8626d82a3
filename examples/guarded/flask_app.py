from functools import wraps

from flask import Flask, g, request

from wxauth_guard import BearerGuard, WxAuthError, problem, require_roles

guard = BearerGuard(issuer="http://127.0.0.1:8000")
app = Flask(__name__)
app.register_error_handler(WxAuthError, lambda refusal: problem(refusal, request.headers))


@app.before_request
def find_user():
    g.wxauth = guard.find_user_sync(request.headers.get("Authorization"))  # None without a Bearer token


def guarded(*roles):
    def decorate(view):
        @wraps(view)
        def guarded_view(**captured):
            require_roles(g.wxauth, *roles)
            return view(**captured)

        return guarded_view

    return decorate


@app.get("/orders")
@guarded()
def orders():
    return {"user": str(g.wxauth.id), "openid": g.wxauth.openid}


@app.delete("/orders/<int:number>")
@guarded("clerk")
def erase(number):
    return "", 204
