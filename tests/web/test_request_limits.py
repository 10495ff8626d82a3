"""Every route rejects requests that are expensive to read, and paths with control characters."""

from collections.abc import Mapping
from urllib.parse import quote

import pytest

from tests.fakes import APP
from tests.problems import problem_of
from tests.sweeps import Sweep, swept
from tests.world import Client, LogIn, LogLines, bearer

PATHS = (
    "/v1/login",
    f"/v1/wechat/push/{APP['app_id']}",
    "/v1/me",
    "/v1/me/sessions",
    "/v1/authorize",
    "/v1/verify",
    "/v1/admin/users",
    "/v1/events",
    "/.well-known/jwks.json",
    "/livez",
    "/readyz",
    "/metrics",
    "/docs",
    "/admin/",
    "/nothing",
)
HEADS_OF_OTHERS = "/v1/verify"
"""The path to which gateways send the head of their client's request.

wxauth never reads the headers that describe this request's body.
"""
CONTROL_CHARACTERS = "\n\r\0\t\x1f\x7f\x80\x85\x9f"
BACKSLASHES = '"' + 8_000 * "\\1" + '"'


async def refused_anywhere(client: Client, *, query: str = "", headers: Mapping[str, str] | None = None) -> None:
    with Sweep() as sweep:
        for path in PATHS:
            for method in ("GET", "POST"):
                with sweep.case(method, path):
                    answer = await client.request(method, path + query, headers=headers)
                    if path == HEADS_OF_OTHERS and headers is not None:
                        problem_of(answer, "missing_token", 401)
                        continue
                    assert problem_of(answer, "invalid_request", 400)["errors"] == []


@pytest.mark.slow
@swept("character", CONTROL_CHARACTERS)
async def test_a_path_with_a_control_character_is_400_for_any_route(offline_client: Client, character: str) -> None:
    with Sweep() as sweep:
        for path in (path + quote(character) for path in PATHS):
            for method in ("GET", "POST", "DELETE"):
                with sweep.case(method, path):
                    problem_of(await offline_client.request(method, path), "invalid_request", 400)
    within = f"/v1/admin/users/{quote(character)}/sessions"
    problem_of(await offline_client.get(within), "invalid_request", 400)


async def test_a_path_without_control_characters_is_accepted(offline_client: Client) -> None:
    for path in ("/%E8%8C%B6", "/a%20b", "/a%C2%A0b", "/a%E3%80%80b", "/%F0%9F%8D%B5"):
        problem_of(await offline_client.get(path), "not_found", 404)


@pytest.mark.slow
async def test_a_content_length_has_20_digits_at_most(offline_client: Client, log_lines: LogLines) -> None:
    for digits in ("0" * 21, "0" * 5000):
        await refused_anywhere(offline_client, headers={"Content-Length": digits})
    assert not [line for line in log_lines() if line["level"] == "error"]
    counted = (await offline_client.get("/metrics")).text
    assert f'wxauth_requests_refused_total{{code="invalid_request"}} {4 * (len(PATHS) - 1)}' in counted
    assert (await offline_client.get("/livez", headers={"Content-Length": "0" * 20})).status_code == 200


@pytest.mark.slow
async def test_a_content_type_has_256_characters_at_most(offline_client: Client, client: Client, login: LogIn) -> None:
    for content_type in ("multipart/form-data" + ";" * 60_000, "a" * 257):
        await refused_anywhere(offline_client, headers={"Content-Type": content_type})
    headers = {**bearer(await login()), "Content-Type": "application/json;".ljust(256, "a")}
    assert (await client.post("/v1/me", content=b'{"phone": null}', headers=headers)).status_code == 200


async def test_a_query_has_at_most_128_parameters_whatever_the_route(offline_client: Client) -> None:
    await refused_anywhere(offline_client, query="?" + "&".join(["a=1"] * 129))
    assert (await offline_client.get("/livez?" + "&".join(["a=1"] * 128))).status_code == 200


async def test_verify_looks_at_32_parameters_at_most(client: Client, login: LogIn) -> None:
    headers = bearer(await login())
    roles = "&".join(["role=admin"] * 32)
    problem_of(await client.get(f"/v1/verify?{roles}", headers=headers), "insufficient_role", 403)
    for more in ("role=admin", "a", ""):
        problem = problem_of(await client.get(f"/v1/verify?{roles}&{more}", headers=headers), "invalid_request", 422)
        assert problem["errors"] == [{"field": "query", "message": "Must have at most 32 parameters"}]


@pytest.mark.slow
async def test_no_cookie_reaches_pythons_parser(client: Client, login: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(value: str) -> str:
        raise AssertionError(f"{len(value)} characters are unquoted in quadratic time")

    headers = bearer(await login())
    monkeypatch.setattr("http.cookies._unquote", parsed)
    with Sweep() as sweep:
        for path in PATHS:
            for cookie in (BACKSLASHES, BACKSLASHES[:2000] + '"'):
                for name in ("a", "__Host-wxauth-browser", "__Host-wxauth-console"):
                    with sweep.case(path, len(cookie), name):
                        answer = await client.get(path, headers={**headers, "Cookie": f"{name}={cookie}"})
                        assert answer.status_code < 500
