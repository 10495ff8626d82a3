"""The pytest plugin, which provides the fixture `wxauth_issuer`.

The plugin imports the guard only for tests that use the fixture, so that pytest starts fast.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wxauth_guard.testing import TestIssuer

_issuers: "list[TestIssuer]" = []


@pytest.fixture(scope="session")
def wxauth_issuer() -> "TestIssuer":
    """Return an issuer of access tokens for tests, which also creates guards that accept these tokens.

    All tests of a session share the issuer, but after each test it forgets bans, ended sessions and roles. See
    `wxauth_guard.testing.TestIssuer`.
    """
    from wxauth_guard.testing import TestIssuer

    issuer = TestIssuer()
    _issuers.append(issuer)
    return issuer


def pytest_runtest_teardown() -> None:
    """Forget what a test has told the issuer about its users."""
    for issuer in _issuers:
        issuer.forget()
