"""The pytest plugin: one fixture. It imports wxauth only when a test uses the fixture, so that pytest starts fast."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wxauth_guard.testing import TestIssuer


@pytest.fixture(scope="session")
def wxauth_issuer() -> "TestIssuer":
    """Issues access tokens as wxauth does, and makes guards that accept them; see `wxauth_guard.testing.TestIssuer`."""
    from wxauth_guard.testing import TestIssuer

    return TestIssuer()
