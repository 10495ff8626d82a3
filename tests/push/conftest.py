"""The fixtures that the tests of pushed messages share."""

import pytest

from tests.fakes import Secrets
from tests.push.messages import PLAIN, SEALED, Inbox
from tests.world import Stage


@pytest.fixture(autouse=True)
def push_secrets(secrets: Secrets) -> None:
    for secret in (PLAIN["push_token"], SEALED["push_token"], SEALED["push_aes_key"]):
        secrets.add(secret)


@pytest.fixture
def inbox(stage: Stage) -> Inbox:
    return Inbox(stage)
