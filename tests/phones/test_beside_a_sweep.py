"""Interrupted phone bindings continue during an hour-long sweep of a large table of sessions."""

import asyncio

import pytest

from tests.fakes import Clock
from tests.world import NUMBER, MakeClient, MakeServices, Rows, bearer, until
from wxauth.server.dev.wechat import PhoneCodeRequest, Simulator
from wxauth.server.housekeeping.housekeeping import Pace, keep_sweeping
from wxauth.server.phones.phones import UNTOUCHED_FOR

AN_HOUR = 3600.0


@pytest.mark.slow
@pytest.mark.parametrize("comes", ["before", "meanwhile"])
async def test_a_pending_number_is_bound_while_the_sweep_is_still_running(
    make_simulated_services: MakeServices,
    make_client: MakeClient,
    simulator: Simulator,
    clock: Clock,
    rows: Rows,
    comes: str,
) -> None:
    services = await make_simulated_services()
    client = make_client(services)
    for person in ("alice", "bob", "carol"):
        await client.post("/v1/login", json={"code": person})
    clock.advance(days=365)
    alice = (await client.post("/v1/login", json={"code": "alice"})).json()

    async def disconnect_half_way() -> None:
        simulator.fail("getuserphonenumber", slow=0.2)
        code = simulator.make_phone_code(PhoneCodeRequest(person="alice", phone=NUMBER))
        binding = asyncio.create_task(client.post("/v1/me/phone", json={"code": code}, headers=bearer(alice)))
        await until(lambda: simulator.calls_of("getuserphonenumber"))
        binding.cancel()
        await until(lambda: rows.fetchval("SELECT count(*) FROM phone_answers"))
        clock.now += 2 * UNTOUCHED_FOR

    if comes == "before":
        await disconnect_half_way()
    house = asyncio.create_task(keep_sweeping(services, Pace(1, AN_HOUR), check_pause=0.05))
    await until(lambda: rows.fetchval("SELECT count(*) = 3 FROM sessions"))  # one is swept; an hour until the next
    if comes == "meanwhile":
        await disconnect_half_way()
    await until(lambda: rows.fetchval("SELECT count(*) FROM users WHERE phone = $1", NUMBER))
    assert await rows.fetchval("SELECT count(*) FROM sessions") == 3
    house.cancel()
    await asyncio.gather(house, return_exceptions=True)
