"""Tests can replace parts of the service with FastAPI's `dependency_overrides`."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import respx
from fastapi import FastAPI

from tests.docs import block
from tests.problems import problem_of
from tests.world import LogIn, Stage
from wxauth.core.services import Services
from wxauth.keys.keyring import KeyRing
from wxauth.service.app import create_api, with_middleware
from wxauth.users.callers import verified
from wxauth.web.dependencies import provide
from wxauth.wechat.client import WeChat
from wxauth_guard.verifier import Verifier


@pytest.fixture
def api(services: Services) -> FastAPI:
    return create_api(services)


@pytest.fixture(params=["the routes alone", "the whole service"])
async def front(request: pytest.FixtureRequest, api: FastAPI, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the routes alone, or of the routes with the shortcut and everything else around them."""
    app = api if request.param == "the routes alone" else with_middleware(api, services)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://auth.test") as client:
        yield client


async def test_a_route_takes_the_user_that_stands_in_for_the_verified_one(
    api: FastAPI, front: httpx.AsyncClient, login: LogIn, services: Services
) -> None:
    alice = await login("alice")
    principal = await services[Verifier].verify(alice["access_token"], now=services.clock().timestamp())
    problem_of(await front.get("/v1/me"), "missing_token", 401)
    api.dependency_overrides[verified] = lambda: principal
    assert (await front.get("/v1/me")).json() == alice["user"]
    assert (await front.get("/v1/me/sessions")).status_code == 200
    api.dependency_overrides.clear()
    problem_of(await front.get("/v1/me"), "missing_token", 401)


async def test_a_route_takes_the_part_that_stands_in_for_another(api: FastAPI, front: httpx.AsyncClient) -> None:
    assert (await front.get("/.well-known/jwks.json")).status_code == 200
    # This key ring hasn't read any keys yet.
    api.dependency_overrides[provide(KeyRing)] = lambda: SimpleNamespace(is_ready=False)
    problem_of(await front.get("/.well-known/jwks.json"), "keys_unavailable", 503)


async def test_respx_mocks_wechat_as_the_guide_shows(stage: Stage) -> None:
    names: dict[str, Any] = {"httpx": httpx, "respx": respx, "Stage": Stage, "WeChat": WeChat}
    exec(block("docs/contribute/development.md", "respx.MockRouter"), names)
    await names["test_a_person_whom_wechat_has_blocked_cannot_log_in"](stage)
