"""Fixtures for an issuer, a timer, and a guard that reads the issuer's keys."""

from collections.abc import Iterator

import pytest
import respx

from tests.guard.fakes import FakeIssuer, Timer
from wxauth_guard import BearerGuard


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with respx.mock(assert_all_called=False) as router:
        yield FakeIssuer(router)


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def guard(issuer: FakeIssuer, timer: Timer) -> BearerGuard:
    return issuer.guard(timer)
