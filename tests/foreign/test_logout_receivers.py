"""The receivers of logout tokens in examples and in website-sessions.md accept the tokens that a service signs."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from tests.docs import ROOT, code_blocks, guide
from tests.foreign.conftest import Issuer
from tests.guard.hostile import Forger
from tests.processes import Running, free_port
from tests.programs import NODE_TESTS, needs_node
from wxauth.events.logout_tokens import FINAL_STATUSES

pytestmark = pytest.mark.process

Receiver = Callable[[Issuer, Path], AbstractAsyncContextManager[httpx.AsyncClient]]
EVENTS: dict[str, dict[str, str]] = {"http://schemas.openid.net/event/backchannel-logout": {}}
WRONG: dict[str, dict[str, Any]] = {
    "another site's": {"aud": "bank"},
    "another issuer's": {"iss": "https://elsewhere.example"},
    "expired": {"exp": 1_700_000_000},
    "of no session": {"sid": None},
    "no event": {"events": {}},
    "with a nonce": {"nonce": "n"},
}


def adapted(source: str, issuer: Issuer) -> str:
    """Change the receiver's source to use this issuer and a site whose tokens are signed with ES256."""
    return source.replace("https://auth.example.com", issuer.url).replace("RS256", "ES256")


def logout_token(issuer: Issuer, *, typ: str = "logout+jwt", **claims: Any) -> str:
    def forged(forger: Forger) -> str:
        payload = {**forger.claims, "aud": "shop", "sid": "s1", "events": EVENTS, **claims}
        return forger.sign({**forger.header, "typ": typ}, {name: value for name, value in payload.items() if value})

    return issuer.forge(forged)


@asynccontextmanager
async def in_python(issuer: Issuer, _folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    around: dict[str, Any] = {}
    exec(adapted((ROOT / "examples/site/app.py").read_text(), issuer), around)
    around["sessions"].update(s1={"id": "alice"}, s2={"id": "bob"})

    async def sessions(_: Request) -> JSONResponse:
        return JSONResponse([*around["sessions"]])

    both = Starlette(routes=[Route("/", sessions), Mount("/", around["app"])])
    transport = httpx.ASGITransport(both, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client


@asynccontextmanager
async def in_node(issuer: Issuer, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    port = free_port()
    program = folder / "receiver.mjs"
    [shown] = [block for block in code_blocks(guide("website-sessions"), "js") if "logout+jwt" in block]
    imports, _, rest = adapted(shown, issuer).partition("\n\n")
    program.write_text(
        f"{imports}\nconst app = express()\n{rest}\nsessions.set('s1', 'alice').set('s2', 'bob')\n"
        "app.get('/', (req, res) => res.json([...sessions.keys()]))\n"
        f"app.listen({port}, '127.0.0.1', () => console.log('listening'))\n"
    )
    (folder / "node_modules").symlink_to(NODE_TESTS / "node_modules")
    with Running(needs_node(NODE_TESTS), str(program), cwd=folder) as process:
        process.wait_for("listening")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client


@pytest.mark.parametrize("receiver", [in_python, pytest.param(in_node, marks=pytest.mark.node)])
async def test_the_receiver_ends_the_session_of_a_good_token_alone(
    receiver: Receiver, issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_environment(monkeypatch, issuer, tmp_path)
    async with receiver(issuer, tmp_path) as site:

        async def told(**form: str) -> int:
            return (await site.post("/backchannel-logout", data=form)).status_code

        for reason, claims in WRONG.items():
            assert await told(logout_token=logout_token(issuer, **claims)) == 400, reason
        assert await told(logout_token=logout_token(issuer, typ="JWT")) == 400
        assert await told(logout_token="nonsense") == 400
        assert await told() == 400
        assert (await site.get("/")).json() == ["s1", "s2"]
        assert await told(logout_token=logout_token(issuer)) == 204
        assert (await site.get("/")).json() == ["s2"]


@pytest.mark.parametrize("receiver", [in_python, pytest.param(in_node, marks=pytest.mark.node)])
async def test_a_receiver_that_cannot_fetch_the_keys_lets_the_service_try_again(
    receiver: Receiver, issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = logout_token(issuer)
    unreachable = replace(issuer, url=f"http://127.0.0.1:{free_port()}")
    prepare_environment(monkeypatch, unreachable, tmp_path)
    async with receiver(unreachable, tmp_path) as site:
        answer = await site.post("/backchannel-logout", data={"logout_token": token})
        assert answer.status_code >= 500
        assert answer.status_code not in FINAL_STATUSES
        assert (await site.get("/")).json() == ["s1", "s2"]


def prepare_environment(monkeypatch: pytest.MonkeyPatch, issuer: Issuer, folder: Path) -> None:
    for name, value in {"no_proxy": "127.0.0.1", "WXAUTH_ISSUER": issuer.url, "WXAUTH_CLIENT_SECRET": "any"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)  # the site stores the key of its cookies here
