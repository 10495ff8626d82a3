"""A change during which the database connection breaks is made once or not at all, and overwrites nothing newer."""

from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.database_proxy import Proxy
from tests.fakes import WeChatByRespx
from tests.problems import problem_of
from tests.world import Client, MakeClient, MakeServices, Rows, bearer

pytestmark = pytest.mark.oldest_postgres


@pytest.fixture
async def client(proxy: Proxy, make_services: MakeServices, make_client: MakeClient) -> httpx.AsyncClient:
    """The service, whose way to the database is the proxy."""
    return make_client(await make_services(database_url=proxy.url))


@pytest.fixture
async def alice(client: Client, wechat: WeChatByRespx) -> dict[str, Any]:
    answer = await client.post("/v1/login", json={"code": wechat.code_for("alice"), "nickname": "Alice"})
    return answer.json()


async def test_a_profile_change_whose_answer_is_lost_is_not_sent_again(
    client: Client, alice: dict[str, Any], proxy: Proxy, rows: Rows
) -> None:
    proxy.lose_next_answer(containing=b"COMMIT")
    answer = await client.patch("/v1/me", json={"nickname": "Eve"}, headers=bearer(alice))
    problem_of(answer, "storage_unavailable", 503)
    assert await rows.fetchval("SELECT nickname FROM users") == "Eve"  # it had been carried out


async def test_a_picture_whose_answer_is_lost_is_not_sent_again(
    client: Client, alice: dict[str, Any], proxy: Proxy, rows: Rows
) -> None:
    picture = BytesIO()
    Image.new("RGB", (60, 40)).save(picture, "JPEG")
    proxy.lose_next_answer(containing=b"COMMIT")
    answer = await client.post("/v1/me/avatar", files={"file": picture.getvalue()}, headers=bearer(alice))
    problem_of(answer, "storage_unavailable", 503)
    assert await rows.fetchval("SELECT count(*) FROM avatars") == 1


async def test_a_connection_that_died_while_nobody_used_it_costs_nobody_a_change(
    client: Client, alice: dict[str, Any], proxy: Proxy
) -> None:
    proxy.drop()
    answer = await client.patch("/v1/me", json={"nickname": "Eve"}, headers=bearer(alice))
    assert answer.json()["nickname"] == "Eve"
