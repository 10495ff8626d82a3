"""The pytest plugin, which provides the fixture `wxauth_issuer`.

The plugin imports the guard only for tests that use the fixture, so that pytest starts fast.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wxauth_guard.testing import TestIssuer


@pytest.fixture(scope="session")
def wxauth_issuer() -> "TestIssuer":
    """Return an issuer of access tokens for tests, which also creates guards that accept these tokens.

    All tests of a session share the issuer. See `wxauth_guard.testing.TestIssuer`.
    """
    from wxauth_guard.testing import TestIssuer

    return TestIssuer()
