"""What pytest finds where wxauth is installed: a fixture, and nothing that costs time until a test asks for it."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wxauth.testing import TestIssuer


@pytest.fixture(scope="session")
def wxauth_issuer() -> "TestIssuer":
    """Issues access tokens as wxauth does, and guards that accept them; see `wxauth.testing.TestIssuer`."""
    from wxauth.testing import TestIssuer

    return TestIssuer()
