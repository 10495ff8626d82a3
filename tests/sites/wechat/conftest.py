"""Fixtures for a street, which is a service whose WeChat is the simulator."""

from functools import partial

import pytest

from tests.conftest import made_of_fixtures
from tests.sites.browsers import BYE
from tests.sites.street import COMPUTER, PAGE, Street
from tests.world import AddSite, GetPhone, LogIn, MakeServices, Phone, Site
from wxauth.service.build import Timeouts
from wxauth_desk.wechat import ACCOUNT, APPS, MOBILE_APP, WEBSITE, Simulator


@pytest.fixture
def simulator(simulator: Simulator) -> Simulator:
    for app_id in (PAGE, COMPUTER):
        simulator.account(app_id).callback_domains = frozenset({"auth.test"})
    return simulator


@pytest.fixture
def is_simulated() -> bool:
    return True


@pytest.fixture
def make_services(make_services: MakeServices) -> MakeServices:
    apps = (*APPS, ACCOUNT, WEBSITE, MOBILE_APP)
    return partial(make_services, apps=apps, timeouts=Timeouts(wechat_busy=(0, 0)))


@pytest.fixture
def get_phone(login: LogIn) -> GetPhone:
    async def get(person: str = "alice", **app: str) -> Phone:
        return Phone(login.client, await login(person, **app), lambda: person)

    return get


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    return await add_site(device=True, logout_uris=[BYE], account_app_id=PAGE, website_app_id=COMPUTER)


@pytest.fixture
def street(request: pytest.FixtureRequest) -> Street:
    return made_of_fixtures(Street, request)
