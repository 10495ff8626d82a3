"""Fixtures for the tests of the transport to WeChat."""

import pytest

from tests.certificates import Authority
from tests.fakes import Secrets
from tests.forward_proxy import CREDENTIALS, PASSWORD
from tests.wechat.asking import CODE, IDENTITY, ServiceAsking
from tests.world import Stage


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def service_asking(stage: Stage, secrets: Secrets) -> ServiceAsking:
    for secret in (CODE, IDENTITY["session_key"], PASSWORD, CREDENTIALS):
        secrets.add(secret)
    return ServiceAsking(stage)
