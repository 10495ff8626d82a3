"""The pytest plugin, which has one fixture.

It imports the guard only in tests that use it, so that pytest starts fast.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wxauth_guard.testing import TestIssuer


@pytest.fixture(scope="session")
def wxauth_issuer() -> "TestIssuer":
    """Return an issuer of access tokens and of guards that accept them; see `wxauth_guard.testing.TestIssuer`."""
    from wxauth_guard.testing import TestIssuer

    return TestIssuer()
