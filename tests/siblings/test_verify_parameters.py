"""`GET /v1/verify` accepts only the parameter `role`: a misspelt parameter must admit nobody."""

import httpx

from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import LogIn, bearer


@swept(
    "query",
    [
        "roles=admin",
        "Role=admin",
        "role%20=admin",
        "role=admin&scope=a",
        "rôle=admin",
        "role[]=admin",
        "admin",
        "a=&b=",
    ],
)
async def test_any_other_parameter_is_refused_with_a_token_and_without(
    client: httpx.AsyncClient, login: LogIn, query: str
) -> None:
    for headers in (bearer(await login()), {}):
        answer = await client.get(f"/v1/verify?{query}", headers=headers)
        problem = problem_of(answer, "invalid_request", 422)
        assert problem["errors"] == [
            {"field": "query", "message": "Takes no parameter but 'role', repeated for several"}
        ]
        assert "'uri /v1/verify?'" in problem["detail"]  # what to write in a Caddyfile
        assert not [name for name in answer.headers if name.startswith("x-auth-")]


async def test_a_missing_or_empty_required_role_is_answered_with_403(client: httpx.AsyncClient, login: LogIn) -> None:
    headers = bearer(await login())
    assert (await client.get("/v1/verify", headers=headers)).status_code == 200
    for query in ("role=admin", "role=", "role=admin&role=admin"):
        problem_of(await client.get(f"/v1/verify?{query}", headers=headers), "insufficient_role", 403)
