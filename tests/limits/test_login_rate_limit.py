"""`LOGIN_RATE_LIMIT` limits the logins of an IP address, and `RATE_LIMIT_EXEMPT` lists addresses without a limit."""

import httpx
import pytest

from tests.problems import problem_of
from tests.processes import free_port
from tests.world import Stage, body_of
from wxauth.service.app import create_app


async def log_in(stage: Stage, address: str | None = "192.0.2.1", *, code: str | None = None) -> httpx.Response:
    peer = None if address is None else (address, 50000)
    transport = httpx.ASGITransport(create_app(stage.services), client=peer)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="https://auth.test") as client:
        return await client.post("/v1/login", json={"code": code or stage.wechat.code_for("alice")})


async def statuses(stage: Stage, *addresses: str | None) -> list[int]:
    return [(await log_in(stage, address)).status_code for address in addresses]


@pytest.fixture
async def limited(stage: Stage) -> Stage:
    return await stage.replica(login_rate_limit="2/minute")


async def test_a_login_over_the_limit_is_refused_before_wechat_is_asked(limited: Stage) -> None:
    assert await statuses(limited, *["192.0.2.1"] * 2) == [200, 200]
    limited.clock.advance(seconds=20.5)
    code = limited.wechat.code_for("alice")
    refused = await log_in(limited, code=code)
    problem_of(refused, "rate_limited", 429)
    assert refused.headers["retry-after"] == "40"
    assert len(limited.wechat.calls) == 2
    limited.clock.advance(seconds=40)
    assert (await log_in(limited, code=code)).status_code == 200


@pytest.mark.parametrize(
    ("addresses", "answers"),
    [
        (["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"], [200, 200, 429, 200]),
        (["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"], [200, 200, 429, 200]),
        ([*(f"2001:db8:1:{n // 2}::1" for n in range(21)), "2001:db8:2:10::1"], [*[200] * 20, 429, 200]),
        (["a unix socket", None] * 3, [200] * 6),
    ],
    ids=["each address", "each /64 of IPv6", "ten in the /48", "nobody, where there is no address"],
)
async def test_the_limit_is_for(limited: Stage, addresses: list[str | None], answers: list[int]) -> None:
    assert await statuses(limited, *addresses) == answers


@pytest.mark.parametrize("address", ["203.0.113.7", "::ffff:203.0.113.7", "2001:db8:5:6::7", "198.51.100.1"])
async def test_an_exempt_network_is_not_counted(stage: Stage, address: str) -> None:
    networks = "203.0.113.0/24, 2001:db8:5::/48, 198.51.100.1"
    limited = await stage.replica(login_rate_limit="1/minute", rate_limit_exempt=networks)
    assert await statuses(limited, *[address] * 3) == [200] * 3
    assert await statuses(limited, *["192.0.2.1"] * 2) == [200, 429]


@pytest.mark.parametrize(
    ("address", "network"), [("203.0.113.7", "203.0.113.0/24"), ("2001:db8:5:6::7", "2001:db8:5::/48")]
)
async def test_the_log_names_the_network_that_was_refused(limited: Stage, address: str, network: str) -> None:
    await statuses(limited, *[address] * 3)
    (line,) = limited.logged("rate_limited")
    assert (line["what"], line["network"]) == ("login", network)
    assert address not in str(limited.log_lines())


async def test_an_empty_limit_is_none(stage: Stage) -> None:
    unlimited = await stage.replica(login_rate_limit="")
    assert await statuses(unlimited, *["192.0.2.1"] * 10) == [200] * 10


async def test_nothing_but_logins_is_limited(stage: Stage) -> None:
    client = await stage.make(login_rate_limit="1/day")
    tokens = await stage.login("alice", at=client)
    for _ in range(3):
        tokens = body_of(await client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]}))


async def test_without_redis_each_process_counts_separately(stage: Stage) -> None:
    settings = {"login_rate_limit": "2/minute", "redis_url": f"redis://127.0.0.1:{free_port()}"}
    for process in (await stage.replica(**settings), await stage.replica(**settings)):
        assert await statuses(process, *["192.0.2.1"] * 5) == [200] * 2 + [429] * 3
    assert len(stage.logged("redis_failed")) == 2
