"""The tests' event loop, whose clock doesn't advance while the machine is busy, and a decorator that adds uvloop."""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from functools import wraps
from selectors import DefaultSelector, SelectorKey
from typing import Any

import pytest
import uvloop

LOOK = 0.01
"""The maximum seconds that one wait of the selector counts."""
ROUND = 1e-5
"""The seconds that a round without waiting counts, regardless of its real duration."""


class UnhurriedLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop with a clock that advances only while the loop is idle.

    Computation in the tests and the service takes no time on this clock, and a pause on a busy machine counts at most
    `LOOK`. So the tests meet the production deadlines on any machine, but a wait still takes its time. The clock is
    never ahead of real time.
    """

    def __init__(self) -> None:
        self.idle = _Idle()
        super().__init__(self.idle)

    def time(self) -> float:
        return self.idle.seconds


class _Idle(DefaultSelector):
    """A selector that adds up the idle time."""

    seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            self.seconds += ROUND
            return super().select(0)
        longest = LOOK if timeout is None else min(timeout, LOOK)
        began = time.monotonic()
        found = super().select(None if timeout is None else longest)
        self.seconds += min(time.monotonic() - began, longest)
        return found


def let_pass(seconds: float) -> None:
    """Advance the running loop's clock by these seconds."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, UnhurriedLoop):
        loop.idle.seconds += seconds
    else:
        time = loop.time
        loop.time = lambda: time() + seconds  # type: ignore[method-assign]


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on both event loops."""

    @wraps(test)
    def run(*, new_loop: Callable[[], asyncio.AbstractEventLoop], **given: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(**given))

    signature = inspect.signature(test)
    new_loop = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    whole: Any = run
    whole.__signature__ = signature.replace(parameters=[*signature.parameters.values(), new_loop])
    del whole.__wrapped__
    loops = [pytest.param(UnhurriedLoop, id="asyncio"), pytest.param(uvloop.new_event_loop, id="uvloop")]
    return pytest.mark.parametrize("new_loop", loops)(whole)
