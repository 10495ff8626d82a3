"""The simulated WeChat pushes to the service, as WeChat would."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.sweeps import swept
from tests.world import Client, bearer
from wxauth.server.core.services import Services
from wxauth.server.dev.wechat import APPS, Simulator, create_simulator
from wxauth.server.service.app import create_app

FIRST, SECOND = (app["app_id"] for app in APPS)

Push = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def answers() -> list[httpx.Response]:
    """The answers of a substitute for the service, in order."""
    return []


@pytest.fixture
def asked() -> list[httpx.Request]:
    """The requests that it received."""
    return []


@pytest.fixture
async def push(
    simulator: Simulator, simulated_services: Services, answers: list[httpx.Response], asked: list[httpx.Request]
) -> AsyncIterator[Push]:
    """`await push("alice", ...)`: to the service, or with a URL, to the one that is not ours."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answers.pop(0)

    service = httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(simulated_services)),
        mounts={"all://other.test": httpx.MockTransport(answer)},
    )
    transport = httpx.MockTransport(service.send)
    app = create_simulator(simulator, push_transport=transport)
    async with service, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wechat.test") as wechat:

        async def post(person: str, **fields: Any) -> httpx.Response:
            return await wechat.post("/push", json={"person": person, **fields})

        yield post


@pytest.mark.slow
@pytest.mark.parametrize("app_id", [FIRST, SECOND])
@pytest.mark.parametrize("format", ["json", "xml"])
async def test_the_service_accepts_the_simulators_messages(
    simulated_client: Client, push: Push, app_id: str, format: str
) -> None:
    body = {"code": "alice", "app_id": app_id, "nickname": "Alice"}
    login = (await simulated_client.post("/v1/login", json=body)).json()
    pushed = (await push("alice", app_id=app_id, format=format)).json()
    assert pushed == {"is_taken": True, "attempts": [{"status": 200, "answer": "success"}]}
    alice = bearer(login)
    assert (await simulated_client.get("/v1/me", headers=alice)).json()["nickname"] is None
    assert (await push("alice", app_id=app_id, event="user_authorization_cancellation")).json()["is_taken"]
    assert (await simulated_client.get("/v1/me", headers=alice)).status_code == 401


@pytest.mark.no_database
async def test_the_app_with_a_key_is_not_pushed_plain(push: Push) -> None:
    pushed = (await push("alice", app_id=SECOND, mode="plain")).json()
    assert not pushed["is_taken"]
    assert [attempt["status"] for attempt in pushed["attempts"]] == [403, 403, 403]


@pytest.mark.no_database
async def test_a_message_that_is_not_accepted_is_sent_three_times_with_new_signatures(
    push: Push, answers: list[httpx.Response], asked: list[httpx.Request]
) -> None:
    answers += [httpx.Response(503), httpx.Response(200, text="Success!"), httpx.Response(200, text="success")]
    pushed = (await push("alice", url="https://other.test/a?b=c")).json()
    assert pushed["is_taken"]
    assert [attempt["status"] for attempt in pushed["attempts"]] == [503, 200, 200]
    assert len({request.url.params["signature"] for request in asked}) == 3
    assert len({request.content for request in asked}) == 1
    assert {request.url.params["b"] for request in asked} == {"c"}


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
async def test_a_wrong_push_is_refused(push: Push, wrong: dict[str, str]) -> None:
    refused = await push("alice", **wrong)
    assert refused.status_code == 422
    assert next(name for name in reversed(wrong)) in refused.json()["error"]
