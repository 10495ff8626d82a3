"""Operations of `/v1/admin` refuse query parameters that they do not have: a misspelt filter would match everything."""

import pytest
from fastapi.routing import APIRoute

from tests.problems import problem_of
from tests.world import NOBODY, Admin, bearer
from wxauth.server.service.app import create_api
from wxauth.server.web.direct import DirectRoute


@pytest.mark.slow
async def test_every_operation_refuses_a_parameter_that_it_does_not_have(root: Admin) -> None:
    asked = 0
    for route in create_api().routes:
        if not isinstance(route, APIRoute) or not route.path.startswith("/v1/admin"):
            continue
        assert isinstance(route, DirectRoute)
        for method in sorted(route.methods or ()):
            path = "/".join(str(NOBODY) if part.startswith("{") else part for part in route.path.split("/"))
            for query in ("shoe_size=43", "limit=1&LIMIT=1", "=", "%00=1"):
                headers = bearer(root.answer)
                answer = await root.client.request(method, f"{path}?{query}", headers=headers, json={})
                assert answer.status_code == 422, (method, path, query, answer.text)
            if method != "HEAD":
                fields = {error["field"] for error in problem_of(answer, "invalid_request", 422)["errors"]}
                assert fields == {"\0"}
            asked += 1
    assert asked > 40


async def test_the_answer_names_the_parameters_that_there_are(root: Admin) -> None:
    answer = await root.ask("GET", "/events", params={"ip": "203.0.113.7", "limit": 1})
    assert problem_of(answer, "invalid_request", 422)["errors"] == [
        {"field": "ip", "message": "Must be one of actor, cursor, limit, since, type, until, user_id"}
    ]
    answer = await root.ask("GET", f"/users/{NOBODY}", params={"ip": "203.0.113.7"})
    assert problem_of(answer, "invalid_request", 422)["errors"] == [
        {"field": "ip", "message": "Must be absent: there are no parameters"}
    ]


async def test_an_empty_query_is_none(root: Admin) -> None:
    answer = await root.client.get("/v1/admin/users?", headers=bearer(root.answer))
    assert answer.status_code == 200
    answer = await root.client.get("/v1/admin/users?q=&status=", headers=bearer(root.answer))
    assert answer.status_code == 200
