"""A town: a service whose WeChat is the simulator."""

from typing import Any

import pytest

from tests.fakes import Clock
from tests.websites.browsers import BYE
from tests.websites.towns import COMPUTER, PAGE, Town
from tests.world import AddSite, Client, GetPhone, LogIn, MakeServices, Phone, Site, log_in
from wxauth.server.core.services import Services
from wxauth.server.dev.wechat import ACCOUNT, APPS, MOBILE_APP, WEBSITE, Simulator
from wxauth.server.service.build import Waits


@pytest.fixture
def simulator(clock: Clock) -> Simulator:
    simulator = Simulator(lambda: clock().timestamp())
    for app_id in (PAGE, COMPUTER):
        simulator.account(app_id).callback_domains = frozenset({"auth.test"})
    return simulator


@pytest.fixture
def make_services(make_simulated_services: MakeServices) -> MakeServices:
    async def make(**settings: Any) -> Services:
        apps = (*APPS, ACCOUNT, WEBSITE, MOBILE_APP)
        return await make_simulated_services(**{"apps": apps, "waits": Waits(wechat_busy=(0, 0)), **settings})

    return make


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services()


@pytest.fixture
def login(client: Client) -> LogIn:
    return LogIn(client)


@pytest.fixture
def get_phone(client: Client) -> GetPhone:
    async def get(person: str = "alice", **app: str) -> Phone:
        return Phone(client, await log_in(client, person, **app), lambda: person)

    return get


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    return await add_site(device=True, logout_uris=[BYE], account_app_id=PAGE, website_app_id=COMPUTER)


@pytest.fixture
def town(request: pytest.FixtureRequest) -> Town:
    return Town.made_of_fixtures(request)
