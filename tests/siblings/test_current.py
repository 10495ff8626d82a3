"""The guard's `current` learns from the service itself what has happened to a session or a user."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
import respx

from tests.clock import PATIENCE
from tests.guard.hostile import Forger
from tests.world import Body, Client, Rows, Stage, set_roles
from wxauth.keys.keyring import KeyRing
from wxauth_guard import BearerGuard, WxAuthError


@pytest.fixture
async def guard(stage: Stage, client: Client) -> AsyncIterator[BearerGuard]:
    """A guard whose questions reach the service, although another thread asks them."""
    loop = asyncio.get_running_loop()

    def forward(request: httpx.Request) -> httpx.Response:
        asked = client.request(request.method, str(request.url), headers=request.headers)
        response = asyncio.run_coroutine_threadsafe(asked, loop).result()
        return httpx.Response(response.status_code, headers=response.headers, content=response.content)

    issuer = stage.services.settings.issuer
    with respx.mock(assert_all_called=False, using="httpcore") as router:
        router.get(url__startswith=f"{issuer}/v1/verify").mock(side_effect=forward)
        guard = BearerGuard(
            issuer, websites=True, keys=stage.services[KeyRing], clock=lambda: stage.clock().timestamp()
        )
        authority: Any = guard._authority_in_use()
        authority._timeout = authority._begin_timeout = PATIENCE
        yield guard


async def code_of(guard: BearerGuard, token: str) -> str:
    with pytest.raises(WxAuthError) as refusal:
        await guard.verify(token)
    return refusal.value.code


@pytest.mark.parametrize(
    "ending",
    [
        "UPDATE sessions SET revoked_at = now(), revoked_reason = 'signed_out', session_key = NULL",
        "UPDATE users SET status = 'disabled'",
        "DELETE FROM users",
    ],
)
async def test_a_ban_and_an_ended_session_count_at_once(
    guard: BearerGuard, stage: Stage, rows: Rows, ending: str
) -> None:
    login: Body = await stage.login("alice")
    token = login["access_token"]
    user = await guard.current.verify(token)
    assert (user.id, user.is_current, user.roles) == (UUID(login["user"]["id"]), True, frozenset())
    await set_roles(rows, "clerk")
    assert (await guard.current.verify(token)).roles == {"clerk"}
    assert (await guard.verify(token)).roles == frozenset()
    await rows.execute(ending)
    assert await code_of(guard.current, token) == "session_revoked"
    assert (await guard.verify(token)).is_current is None


async def test_wxauth_accepts_the_websites_that_the_guard_accepts(guard: BearerGuard, stage: Stage) -> None:
    token = (await stage.login("alice"))["access_token"]
    forger = Forger(token, stage.services[KeyRing].signing_key(stage.clock()))
    website = forger.with_claims(client_id="shop", app_id="wxother", scope="openid")
    assert (await guard.current.verify(website)).is_current
    assert await code_of(guard.requires("orders:read").current, website) == "insufficient_scope"
