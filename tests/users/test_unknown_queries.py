"""Operations of `/v1/admin` refuse query parameters that they do not have: a misspelt filter would match everything."""

from tests.problems import problem_of
from tests.world import NOBODY, Admin, bearer


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
