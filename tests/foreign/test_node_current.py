"""In Node, `guard.current` learns from a running service what has happened to a session or a user."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.certificates import Authority
from tests.foreign.conftest import Issuer
from tests.programs import needs, output_of
from tests.upstream import Upstream, hang
from tests.world import set_roles

pytestmark = [pytest.mark.process, pytest.mark.node]

PACKAGE = Path(__file__).parents[2] / "clients/node"
ASK = """
import { BearerGuard } from 'wxauth-guard'
const [issuer, token, options] = JSON.parse(process.argv[1])
const guard = new BearerGuard({ ...options, issuer, warn() {} })
const ask = (asked) => asked.verify(token).then(({ roles, isCurrent }) => [roles, isCurrent], ({ code }) => code)
console.log(JSON.stringify([await ask(guard.current), await ask(guard)]))
"""


async def ask(issuer: str, token: str, **options: Any) -> Any:
    """Return what `guard.current` and `guard` say about a token: the user's roles and `isCurrent`, or the code."""
    command = (needs("node"), "--input-type=module", "-e", ASK, json.dumps([issuer, token, options]))
    return json.loads(await asyncio.to_thread(output_of, *command, cwd=PACKAGE))


@pytest.fixture
async def login(issuer: Issuer) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=issuer.url, trust_env=False) as client:
        return (await client.post("/v1/login", json={"code": f"n{uuid4().hex[:30]}"})).json()


@pytest.mark.parametrize(
    "ending",
    [
        "UPDATE sessions SET revoked_at = now(), revoked_reason = 'signed_out', session_key = NULL WHERE user_id = $1",
        "UPDATE users SET status = 'disabled' WHERE id = $1",
        "DELETE FROM users WHERE id = $1",
    ],
)
async def test_a_ban_an_ended_session_and_new_roles_count_at_once(
    issuer: Issuer, login: dict[str, Any], database_of_issuer: str, ending: str
) -> None:
    token, user_id = login["access_token"], login["user"]["id"]
    rows = await asyncpg.connect(database_of_issuer)
    try:
        await set_roles(rows, "clerk", user_id=user_id)
        assert await ask(issuer.url, token) == [[["clerk"], True], [[], None]]
        await rows.execute(ending, user_id)
        assert await ask(issuer.url, token) == ["session_revoked", [[], None]]
    finally:
        await rows.close()


async def test_wxauth_accepts_the_websites_that_the_guard_accepts(issuer: Issuer) -> None:
    token = issuer.forge(lambda forger: forger.with_claims(client_id="shop", app_id="wxother", scope="openid"))
    assert await ask(issuer.url, token) == ["insufficient_scope"] * 2
    assert await ask(issuer.url, token, websites=True) == [[[], True], [[], None]]
    assert await ask(issuer.url, token, scopes="openid") == [[[], True], [[], None]]


STRANGER = """
import { BearerGuard } from 'wxauth-guard'
import { TestIssuer } from 'wxauth-guard/testing'
import { verificationKeys } from './lib/keys.js'
const issuer = new TestIssuer({ issuer: process.argv[1] })
const keys = verificationKeys(issuer.jwks.keys)
const options = { orOffline: true, keys: { find: async (kid) => keys.get(kid) }, warn: (line) => console.log(line) }
const guard = new BearerGuard({ issuer: issuer.issuer, ...options })
console.log(await guard.current.verify(issuer.token()).then(({ isCurrent }) => isCurrent, ({ code }) => code))
"""


async def test_a_wrong_certificate_is_never_an_outage(tmp_path: Path) -> None:
    async with Upstream(hang, tls=Authority(tmp_path).server("127.0.0.1")) as wxauth:
        command = (needs("node"), "--input-type=module", "-e", STRANGER, wxauth.url)
        line, outcome = (await asyncio.to_thread(output_of, *command, cwd=PACKAGE)).splitlines()
        assert "TLS failed" in line
        assert (outcome, wxauth.requests) == ("verification_unavailable", [])
