"""Tests of the tests' own event loop, whose clock doesn't advance while the machine is busy."""

import asyncio
import time

import pytest

from tests.loops import LOOK


async def test_while_the_process_is_held_up_no_time_passes() -> None:
    async with asyncio.timeout(0.1):
        time.sleep(0.2)  # noqa: ASYNC251 - as when the machine has no processor for us
        await asyncio.sleep(LOOK)


async def test_a_wait_is_no_shorter_than_on_the_walls_clock() -> None:
    loop = asyncio.get_running_loop()
    began, began_there = time.monotonic(), loop.time()
    await asyncio.sleep(5.5 * LOOK)
    assert 5.5 * LOOK <= loop.time() - began_there <= time.monotonic() - began


async def test_a_loop_that_is_never_idle_reaches_its_deadlines() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - keeps the loop busy
            await asyncio.sleep(0)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(spin(), LOOK)
