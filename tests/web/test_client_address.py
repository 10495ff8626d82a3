"""`TRUSTED_PROXIES` decides which client address the rate limit, the list of devices and the audit trail use."""

import gc
import json
import socket
import tracemalloc

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from tests.processes import serving
from tests.sweeps import swept
from tests.world import Stage, bearer
from wxauth.service.app import create_app
from wxauth.service.server import listen, uvicorn_options
from wxauth.web.proxies import BehindProxies

PEER = "127.0.0.1"
TRUSTED = (PEER, "10.0.0.0/8", "2001:db8:1::/48")


async def answer_with_client(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the client's address that the app sees."""
    request = Request(scope)
    assert request.client is not None
    seen = {"client": request.client.host, "scheme": request.url.scheme, "root_path": scope["root_path"]}
    await JSONResponse(seen)(scope, receive, send)


async def client_seen(*forwarded_for: str, trusted: tuple[str, ...] = TRUSTED, **others: str) -> dict[str, str]:
    """Return what the app sees of a request that `PEER` has forwarded."""
    headers = [("X-Forwarded-For", value) for value in forwarded_for]
    headers += [(name.replace("_", "-"), value) for name, value in others.items()]
    transport = httpx.ASGITransport(BehindProxies(answer_with_client, trusted), client=(PEER, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://auth.test") as client:
        return (await client.get("/", headers=headers)).json()


@swept(
    ("forwarded_for", "client"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (["198.51.100.1,203.0.113.7 ,10.1.2.3,\t10.0.0.9"], "203.0.113.7"),
        (["10.1.2.3, 10.0.0.9"], "10.1.2.3"),
        (["198.51.100.1", "198.51.100.2, 203.0.113.7", "10.1.2.3"], "203.0.113.7"),
        *(([f"203.0.113.7, {proxy}"], "203.0.113.7") for proxy in ("2001:db8:1::2", "[2001:db8:1::2]:8443")),
        *(([f"203.0.113.7, {proxy}"], "203.0.113.7") for proxy in ("::ffff:10.1.2.3", "10.1.2.3:80")),
        (["203.0.113.7" + ", 10.1.2.3" * 5000], PEER),  # these are more proxies than any deployment has
    ],
)
async def test_the_last_entry_that_is_no_trusted_proxys_is_the_client(forwarded_for: list[str], client: str) -> None:
    assert (await client_seen(*forwarded_for))["client"] == client


@pytest.mark.parametrize(("of_issuer", "seen"), [("", "/mounted"), ("/auth", "/auth")])
async def test_the_issuers_path_replaces_the_servers(of_issuer: str, seen: str) -> None:
    served = BehindProxies(answer_with_client, TRUSTED, root_path=of_issuer)
    transport = httpx.ASGITransport(served, root_path="/mounted", client=(PEER, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://auth.test") as client:
        assert (await client.get("/")).json()["root_path"] == seen


@swept(
    ("entry", "client"),
    [
        ("203.0.113.7:1234", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
    ],
)
@swept("trusted", [TRUSTED, ("*",)], ids=["some", "anybody"])
async def test_an_entry_may_have_brackets_and_a_port(entry: str, client: str, trusted: tuple[str, ...]) -> None:
    assert (await client_seen(f"198.51.100.1, {entry}", trusted=trusted))["client"] == client


@swept(
    "entry",
    ["unknown", "_hidden", "", "-", "unix:", "[", "[]:80", "203.0.113", "203.0.113.7:http", "203.0.113.7;", "7" * 9000],
)
@swept("trusted", [TRUSTED, ("*",)], ids=["some", "anybody"])
async def test_an_invalid_address_counts_as_the_proxys_own(entry: str, trusted: tuple[str, ...]) -> None:
    assert (await client_seen(f"198.51.100.1, {entry}", trusted=trusted))["client"] == PEER


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",)])
async def test_only_a_trusted_proxy_names_the_client(trusted: tuple[str, ...]) -> None:
    reported = await client_seen("203.0.113.7", trusted=trusted, X_Forwarded_Proto="https")
    assert reported == {"client": PEER, "scheme": "http", "root_path": ""}


@pytest.mark.parametrize(("said", "scheme"), [("https", "https"), ("http", "http"), ("javascript", "http")])
async def test_the_scheme_is_a_trusted_proxys_to_say(said: str, scheme: str) -> None:
    assert (await client_seen(X_Forwarded_Proto=said))["scheme"] == scheme


async def test_the_log_says_once_that_a_proxy_may_be_missing(stage: Stage) -> None:
    client = await stage.make(trusted_proxies="10.0.0.0/8")
    for _ in range(3):
        await client.get("/livez", headers={"X-Forwarded-For": "203.0.113.7"})
    (line,) = stage.logged("forwarded_for_not_trusted")
    assert (line["level"], line["peer"]) == ("warning", PEER)
    assert "WXAUTH_TRUSTED_PROXIES" in line["what_to_change"]
    assert "203.0.113.7" not in json.dumps(line)


@pytest.mark.requirement("asvs-6.1.1")
async def test_a_session_and_its_limit_are_the_clients_own(stage: Stage) -> None:
    client = await stage.make(login_rate_limit="1/minute")

    async def log_in(forwarded_for: str) -> httpx.Response:
        body = {"code": stage.wechat.code_for("alice")}
        return await client.post("/v1/login", json=body, headers={"X-Forwarded-For": forwarded_for})

    answers = [await log_in(f"198.51.100.1, {client}") for client in ("2001:DB8::7", "203.0.113.7", "unknown")]
    assert [answer.status_code for answer in answers] == [200] * 3
    listed = (await client.get("/v1/me/sessions", headers=bearer(answers[0].json()))).json()
    assert {item["ip"] for item in listed["items"]} == {"2001:db8::7", "203.0.113.7", PEER}
    again = [await log_in(f"198.51.100.2, {client}") for client in ("2001:DB8::7", "203.0.113.7", "unknown")]
    assert [answer.status_code for answer in again] == [429] * 3


@pytest.mark.parametrize(("peer", "shown"), [("::ffff:203.0.113.7", "203.0.113.7"), ("fe80::1%eth0", "fe80::1")])
async def test_an_address_without_a_proxy_has_the_same_form(stage: Stage, peer: str, shown: str) -> None:
    transport = httpx.ASGITransport(create_app(await stage.make_services()), client=(peer, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="https://auth.test") as client:
        tokens = await stage.login("alice", at=client)
        listed = (await client.get("/v1/me/sessions", headers=bearer(tokens))).json()
    assert [item["ip"] for item in listed["items"]] == [shown]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_where_both_ipv6_and_ipv4_are_served_a_client_has_its_own_address() -> None:
    served = BehindProxies(answer_with_client, ())
    with serving(served, at=listen("::", 0), **uvicorn_options(), lifespan="off") as url:
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(url.replace("127.0.0.1", host), trust_env=False).json()["client"] == host.strip("[]")


def test_without_ipv6_ipv4_alone_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen("::", 0) as listener:
        assert listener.family == socket.AF_INET


@pytest.mark.slow
async def test_entries_written_by_clients_are_not_kept(stage: Stage) -> None:
    client = await stage.make(trusted_proxies="*")
    await client.get("/livez")
    tracemalloc.start()
    try:
        for number in range(200):
            for forwarded_for in (f"{number:050000}", f"{number:050000}, 203.0.113.7"):
                await client.get("/livez", headers={"X-Forwarded-For": forwarded_for})
        gc.collect()  # a request and its response refer to each other
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2_000_000
