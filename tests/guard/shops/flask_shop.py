"""The shop in Flask, with blueprints and an own error handler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

from flask import Blueprint, Flask, jsonify
from flask.views import MethodView

from tests.guard.shops import GUARD, OTHER_GUARD, Shop, client_by_wsgi, seen, trusted
from wxauth_guard import WxAuthError, require_roles
from wxauth_guard.flask import bearer, current_user


def shouted(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def answer(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    return answer


def make_app() -> Flask:
    app = Flask("shop")

    @app.get("/function")
    @bearer(GUARD)
    def function() -> str:
        return seen(current_user)

    @app.get("/coroutine")
    @bearer(GUARD)
    async def coroutine() -> str:
        return seen(current_user)

    @app.get("/above-another")
    @bearer(GUARD)
    @shouted
    def above_another() -> str:
        return seen(current_user)

    @app.get("/below-another")
    @shouted
    @bearer(GUARD)
    def below_another() -> str:
        return seen(current_user)

    @app.get("/argument/<int:number>")
    @bearer(GUARD)
    def argument(number: int) -> str:
        assert number == 7
        return seen(current_user)

    @app.get("/stream")
    @bearer(GUARD)
    def stream() -> Iterator[str]:
        return (letter for letter in seen(current_user))

    @app.route("/role", methods=["GET", "OPTIONS"])
    @bearer(GUARD, "clerk")
    def role() -> str:
        return seen(current_user)

    @app.get("/role-in-view")
    @bearer(GUARD)
    def role_in_view() -> str:
        require_roles(current_user, "clerk")
        return seen(current_user)

    @app.get("/optional")
    @bearer(GUARD, optional=True)
    def optional() -> str:
        return seen(current_user)

    @app.get("/current")
    @bearer(GUARD.current)
    def current() -> str:
        return seen(current_user)

    @app.get("/other")
    @bearer(OTHER_GUARD)
    def other() -> str:
        return seen(current_user)

    @app.get("/own-error")
    @bearer(GUARD)
    def own_error() -> str:
        raise LookupError("gone")

    @app.get("/another-token")
    @bearer(GUARD)
    def another_token() -> str:
        GUARD.verify_sync("not.a.token")
        return "never"

    class Method(MethodView):
        @bearer(GUARD)
        def get(self) -> str:
            return seen(current_user)

        @bearer(GUARD)
        async def post(self) -> str:
            return seen(current_user)

    class Listed(MethodView):
        decorators = [bearer(GUARD)]  # noqa: RUF012 - as Flask's guide shows it

        async def get(self) -> str:
            return seen(current_user)

    @bearer(GUARD)
    class Whole(MethodView):
        def get(self) -> str:
            return seen(current_user)

    class Inheriting(Whole):
        decorators = [shouted]  # noqa: RUF012 - as Flask's guide shows it

    for path, view in {"method": Method, "listed": Listed, "class": Whole, "inheriting": Inheriting}.items():
        app.add_url_rule(f"/{path}", view_func=view.as_view(path))

    blueprint, enveloped = Blueprint("blueprint", "shop"), Blueprint("enveloped", "shop")

    @blueprint.get("/blueprint")
    @bearer(GUARD)
    def in_blueprint() -> str:
        return seen(current_user)

    @enveloped.get("/enveloped")
    @bearer(GUARD)
    def in_envelope() -> str:
        return seen(current_user)

    enveloped.register_error_handler(WxAuthError, lambda error: (jsonify(code=error.code), 418))
    # A handler for all errors must not answer refusals.
    app.register_error_handler(Exception, lambda error: (repr(error), 599))
    app.register_error_handler(401, lambda error: ("own 401", 599))
    app.register_blueprint(blueprint)
    app.register_blueprint(enveloped)
    return app


@asynccontextmanager
async def served() -> AsyncIterator[Shop]:
    app = make_app()
    paths = [rule.rule.replace("<int:number>", "7") for rule in app.url_map.iter_rules()]
    async with client_by_wsgi(app) as client, trusted(client, [path for path in paths if "static" not in path]) as shop:
        yield shop
