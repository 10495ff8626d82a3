"""The simulated WeChat pushes to the service, as WeChat would."""

from typing import Any

import httpx
import pytest

from tests.sweeps import swept
from tests.world import Stage
from wxauth.server.core.services import Services
from wxauth.server.dev.wechat import APPS, Simulator, create_simulator
from wxauth.server.service.app import create_app

pytestmark = pytest.mark.usefixtures("simulated")

FIRST, SECOND = (app["app_id"] for app in APPS)


class Pusher:
    """The simulator's pushes: to the service, or with a URL, to one that is not ours, which answers in order."""

    def __init__(self, simulator: Simulator, services: Services) -> None:
        self.answers: list[httpx.Response] = []
        self.asked: list[httpx.Request] = []
        stage = httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(services)),
            mounts={"all://other.test": httpx.MockTransport(self._answer)},
        )
        app = create_simulator(simulator, push_transport=httpx.MockTransport(stage.send))
        self._wechat = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wechat.test")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers.pop(0)

    async def __call__(self, **fields: Any) -> httpx.Response:
        return await self._wechat.post("/push", json={"person": "alice", **fields})


@pytest.fixture
def push(simulator: Simulator, services: Services) -> Pusher:
    return Pusher(simulator, services)


@pytest.mark.slow
@pytest.mark.parametrize("app_id", [FIRST, SECOND])
@pytest.mark.parametrize("format", ["json", "xml"])
async def test_the_service_accepts_the_simulators_messages(stage: Stage, app_id: str, format: str) -> None:
    push = Pusher(stage.simulator, stage.services)
    alice = await stage.login(app_id=app_id, nickname="Alice")
    pushed = (await push(app_id=app_id, format=format)).json()
    assert pushed == {"is_taken": True, "attempts": [{"status": 200, "answer": "success"}]}
    assert (await stage.user(alice))["nickname"] is None
    assert (await push(app_id=app_id, event="user_authorization_cancellation")).json()["is_taken"]
    assert (await stage.me(alice)).json()["code"] == "invalid_token"


@pytest.mark.no_database
async def test_the_app_with_a_key_is_not_pushed_plain(push: Pusher) -> None:
    pushed = (await push(app_id=SECOND, mode="plain")).json()
    assert not pushed["is_taken"]
    assert [attempt["status"] for attempt in pushed["attempts"]] == [403, 403, 403]


@pytest.mark.no_database
async def test_a_message_that_is_not_accepted_is_sent_three_times_with_new_signatures(push: Pusher) -> None:
    push.answers += [httpx.Response(503), httpx.Response(200, text="Success!"), httpx.Response(200, text="success")]
    pushed = (await push(url="https://other.test/a?b=c")).json()
    assert pushed["is_taken"]
    assert [attempt["status"] for attempt in pushed["attempts"]] == [503, 200, 200]
    assert len({request.url.params["signature"] for request in push.asked}) == 3
    assert len({request.content for request in push.asked}) == 1
    assert {request.url.params["b"] for request in push.asked} == {"c"}


@swept(
    "wrong",
    [
        {"app_id": "wx1"},
        {"app_id": FIRST, "mode": "aes"},
        {"event": "]]>"},
        {"revoke_info": "six"},
        {"format": "csv"},
        {"url": "ftp://a"},
    ],
    ids=str,
)
@pytest.mark.no_database
async def test_a_wrong_push_is_refused(push: Pusher, wrong: dict[str, str]) -> None:
    refused = await push(**wrong)
    assert refused.status_code == 422
    assert next(name for name in reversed(wrong)) in refused.json()["error"]
