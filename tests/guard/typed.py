"""Code that uses the guard's public types. Mypy and pyright check it, and nothing runs it."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, assert_type
from uuid import UUID

from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.routing import Route

from wxauth_guard import (
    BearerGuard,
    BearerMiddleware,
    BearerWSGIMiddleware,
    Principal,
    WxAuthError,
    bearer_token,
    problem,
)
from wxauth_guard.problems import ProblemAnswer
from wxauth_guard.testing import TestIssuer

guard = BearerGuard(issuer="https://auth.example.com", audience="https://mcp.example.com/mcp", scopes=["orders:read"])
app = FastAPI()


class ShopGuard(BearerGuard):
    shop = "tea"


@app.get("/orders", dependencies=[Depends(guard.require_role("clerk"))])
async def orders(user: Annotated[Principal, Depends(guard.requires("orders:write", "orders:delete"))]) -> str:
    assert_type(user.id, UUID)
    assert_type(user.scope, frozenset[str])
    assert_type(user.roles, frozenset[str])
    assert_type(user.claims, Mapping[str, Any])
    assert_type(user.external_id, str | None)
    assert_type(user.is_current, bool | None)
    guard.check_scopes(user, "orders:write")
    return user.openid


async def used(refusal_headers: dict[str, str]) -> None:
    assert_type(guard.requires("a"), BearerGuard)
    assert_type(guard.current, BearerGuard)
    assert_type(guard.current.requires("a").current, BearerGuard)
    assert_type(await guard.current.verify("x"), Principal)
    assert_type(ShopGuard("https://auth.example.com").requires("a"), ShopGuard)
    assert_type(await guard.verify(guard.bearer_token(None, "Bearer x")), Principal)
    assert_type(guard.verify_sync(bearer_token("Bearer x")), Principal)
    assert_type(guard.resource_metadata(scopes_supported=["a"], resource_name="Orders"), dict[str, Any])
    assert_type(guard.resource_metadata_path, str)
    assert_type(guard.metadata_route(), Route)
    try:
        await guard.verify("x")
    except WxAuthError as refusal:
        assert_type(problem(refusal, refusal_headers), ProblemAnswer)


middleware = BearerMiddleware(Starlette(), guard.requires("a"), roles=["clerk"], public=[guard.resource_metadata_path])
by_wsgi = BearerWSGIMiddleware(lambda environ, start_response: [], guard.requires("a"))
issuer = TestIssuer()
scopes: Iterable[str] = ("a", "b")
assert_type(issuer.token(scope=scopes, client_id="https://agent.test/client.json"), str)
assert_type(issuer.guard(scopes=scopes, websites=True, or_offline=True), BearerGuard)
assert_type(ShopGuard("https://auth.example.com", websites=True, or_offline=True).current, ShopGuard)
