"""Checks the rules that apply to every operation.

The tests read the operations from the documentation, so they cover new operations automatically.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from tests.docs import access, openapi
from tests.fakes import Clock
from tests.problems import problem_of
from tests.sweeps import Sweep
from tests.world import NOBODY, AddSibling, Admin, Body, Client, LogIn, Rows, Stage, bearer, later, make_admin
from wxauth.clients.clients import Credentials
from wxauth.clients.models import Scope

pytestmark = pytest.mark.slow

MAX_BODY: Final = 64 * 1024
OTHERS: Final[dict[str, list[Any]]] = {
    "string": ["x", "false"],
    "number": [1.5, 0, 1, 0.0],
    "boolean": [True, False],
    "array": [[], [[]]],
    "object": [{}, {"x": {}}],
}
"""Values of each JSON type."""
WRONG: Final = {
    "integer": ["x", "1.5", "-721", "99999999999"],
    "uuid": ["x", "0"],
    "date-time": ["yesterday", "2026-11-20"],
}
"""Values that don't fit a parameter's type or format."""


def beyond(shape: Body) -> list[Any]:
    """Return values of the right type that violate the bounds, the pattern or the format in the documentation."""
    is_needed = "anyOf" not in shape
    shape = next((it for it in shape.get("anyOf", ()) if it.get("type") != "null"), shape)
    wrong: list[Any] = []
    if shape.get("type") == "array":
        # An unknown scope fails with the site's own error.
        items = {} if {"$ref", "enum"} & shape["items"].keys() else shape["items"]
        wrong = [[value] for value in (*beyond(items), 1, None)]
        wrong += [[]] * ("minItems" in shape)
        return wrong + ([[str(NOBODY)] * (shape["maxItems"] + 1)] if "maxItems" in shape else [])
    wrong += ["x" * (shape["maxLength"] + 1)] if "maxLength" in shape else []
    wrong += [""] * bool(is_needed and shape.get("minLength"))
    wrong += ["perhaps"] if "enum" in shape else []
    wrong += ["a\0b"] if "pattern" in shape else []
    wrong += ["A b", "x" * 65] if shape.get("pattern", "").startswith("^[a-z") else []
    wrong += WRONG.get(shape.get("format", ""), [])
    return wrong + [shape[bound] + step for bound, step in (("minimum", -1), ("maximum", 1)) if bound in shape]


class Operation:
    """An operation as the documentation describes it."""

    def __init__(self, method: str, path: str, described: Body) -> None:
        self.method, self.path = method.upper(), path
        self.name = f"{self.method} {path}"
        assert self.name in access(), f"add {self.name} to tests/web/operations.txt, with its id and who may use it"
        _, (who, *self.further) = access()[self.name]
        self.takes_token, self.takes_client = who in ("user", "support", "admin"), who == "client"
        self.is_for_staff, self.is_for_support = who in ("support", "admin"), who == "support"
        self.parameters = {it["name"]: it["schema"] for it in described.get("parameters", ()) if it["in"] == "query"}
        self.ids = {it["name"]: it["schema"] for it in described.get("parameters", ()) if it["in"] == "path"}
        content = described.get("requestBody", {}).get("content", {}).get("application/json", {})
        names = re.findall(r"/schemas/(\w+)'", str(content.get("schema")))
        self.body: Body = openapi()["components"]["schemas"][names[0]] if names else {}
        failures = [it.get("content", {}).get("application/problem+json", {}) for it in described["responses"].values()]
        self.failures = {code for failure in failures for code in failure.get("examples", {})}

    def __str__(self) -> str:
        return self.name

    @property
    def example(self) -> object:
        return self.body.get("examples", [{}])[0]

    async def ask(self, client: Client, *, ids: str = "", **options: Any) -> httpx.Response:
        """Send a request with ids that don't exist, or with these ids."""
        unknown = {name: str(NOBODY) if it.get("format") == "uuid" else "nothing" for name, it in self.ids.items()}
        path = re.sub(r"{(\w+)}", lambda found: ids or unknown[found[1]], self.path)
        return await client.request(self.method, path, **options)


OPERATIONS: Final = [
    Operation(method, path, described)
    for path, methods in openapi()["paths"].items()
    for method, described in methods.items()
]
WITH_TOKEN: Final = [it for it in OPERATIONS if it.takes_token]
NOT_FOUND: Final = {"not_found", "unknown_app", "scan_over"}
FOR_STAFF: Final = [it for it in OPERATIONS if it.is_for_staff]


@dataclass(frozen=True)
class Authorized:
    """An administrator and a service with every scope, who send each request with the credentials that it requires."""

    root: Admin
    service: Credentials

    async def ask(self, operation: Operation, **options: Any) -> httpx.Response:
        if operation.takes_token:
            options["headers"] = bearer(self.root.answer)
        elif operation.takes_client:
            options["auth"] = self.service
        return await operation.ask(self.root.client, **options)


@pytest.fixture
async def authorized(root: Admin, add_sibling: AddSibling) -> Authorized:
    return Authorized(root, await add_sibling("all", *Scope))


async def test_without_a_valid_token_nothing_else_is_looked_at(client: Client, login: LogIn, clock: Clock) -> None:
    token = bearer(await login())
    with Sweep() as sweep:
        for operation in WITH_TOKEN:
            with sweep.case(operation):
                problem_of(await operation.ask(client, content=b"{"), "missing_token", 401)
                answer = await operation.ask(client, content=b"{", headers=bearer("not.a.token"))
                problem_of(answer, "invalid_token", 401)
                assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
                problem_of(await operation.ask(client, headers=[*token.items()] * 2), "invalid_request", 400)
        clock.advance(seconds=900 + 30)
        for operation in WITH_TOKEN:
            with sweep.case("expired", operation):
                problem_of(await operation.ask(client, content=b"{", headers=token), "token_expired", 401)


@pytest.mark.requirement("asvs-7.4.1")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE sessions SET expires_at = created_at",
        "UPDATE sessions SET revoked_at = now(), revoked_reason = 'logout', session_key = NULL",
        "UPDATE users SET status = 'disabled'",
        "DELETE FROM users",
    ],
    ids=["expired", "signed out", "banned", "erased"],
)
async def test_who_has_gone_since_is_refused_at_once(root: Admin, rows: Rows, change: str) -> None:
    await rows.execute(change)
    with Sweep() as sweep:
        # /v1/userinfo accepts only a site's token.
        for operation in (it for it in WITH_TOKEN if it.path != "/v1/userinfo"):
            with sweep.case(operation):
                answer = await operation.ask(root.client, json=operation.example, headers=bearer(root.answer))
                problem_of(answer, "invalid_token", 401)


@pytest.mark.requirement("asvs-8.2.1")
async def test_staff_may_do_what_their_role_allows_and_nobody_else_may(stage: Stage) -> None:
    client, alice = stage.client, await stage.login()
    sue = await make_admin(client, stage.rows, await stage.login("sue"), role="support")
    with Sweep() as sweep:
        for operation in FOR_STAFF:
            with sweep.case(operation):
                answer = await operation.ask(client, content=b"{", headers=bearer(alice))
                problem_of(answer, "insufficient_role", 403)
                assert "www-authenticate" not in answer.headers
                answer = await operation.ask(client, content=b"{", headers=bearer(sue.answer))
                assert (answer.status_code != 403) == operation.is_for_support, answer.text


@pytest.mark.requirement("asvs-6.4.4")
async def test_what_gives_lasting_power_requires_a_fresh_login(root: Admin, clock: Clock) -> None:
    stale = await later(root, clock)
    with Sweep() as sweep:
        for operation in FOR_STAFF:
            with sweep.case(operation):
                answer = await operation.ask(root.client, json=operation.example, headers=bearer(stale.answer))
                assert ("login_too_old" in answer.text) == ("fresh" in operation.further), answer.text


async def test_a_service_may_do_what_its_scopes_allow(client: Client, add_sibling: AddSibling) -> None:
    with Sweep() as sweep:
        for scope in Scope:
            sibling = await add_sibling(scope.value, scope)
            for operation in (it for it in OPERATIONS if it.takes_client):
                with sweep.case(scope, operation):
                    answer = await operation.ask(client, json=operation.example, auth=sibling)
                    assert (answer.status_code != 403) == (operation.further == [scope]), answer.text


async def test_a_service_is_known_by_its_secret(client: Client, add_sibling: AddSibling) -> None:
    wrong = (await add_sibling("orders", *Scope))._replace(client_secret="wrong")
    with Sweep() as sweep:
        for operation in (it for it in OPERATIONS if it.takes_client):
            with sweep.case(operation):
                for credentials in (None, wrong):
                    answer = await operation.ask(client, content=b"{", auth=credentials)
                    problem_of(answer, "invalid_client", 401)
                    assert answer.headers["www-authenticate"] == "Basic"


async def test_a_body_that_is_wrong_is_refused_by_what_is_wrong(authorized: Authorized) -> None:
    with Sweep() as sweep:
        for operation in (it for it in OPERATIONS if it.body):
            for content in (b"{", b"[]", b'"x"', b"\xff"):
                with sweep.case(operation, content):
                    answer = await authorized.ask(operation, content=content)
                    problem_of(answer, "invalid_request", 422)
            for field, shape in operation.body.get("properties", {}).items():
                # A login reports wrong values in these fields but doesn't fail.
                if "$ref" in str(shape) or (operation.path, field) == ("/v1/login", "consents"):
                    continue
                types = set(re.findall(r"'type': '(\w+)'", str(shape)))
                types |= {"number", "boolean"} if types & {"integer", "number"} else set()
                others = [value for kind in OTHERS.keys() - types for value in OTHERS[kind]]
                for value in (*others, *beyond(shape)):
                    with sweep.case(operation, field, repr(value)):
                        answer = await authorized.ask(operation, json={field: value})
                        errors = problem_of(answer, "invalid_request", 422)["errors"]
                        assert field in {error["field"].partition(".")[0] for error in errors}


async def test_a_body_has_64_kib_at_most_wherever_it_is_sent(authorized: Authorized) -> None:
    with Sweep() as sweep:
        for operation in (it for it in OPERATIONS if it.body and it.path != "/v1/apps/{app_id}/signatures"):
            with sweep.case(operation):
                answer = await authorized.ask(operation, content=b" " * (MAX_BODY + 1))
                problem_of(answer, "payload_too_large", 413)


async def test_a_parameter_that_is_wrong_is_refused_by_its_name(authorized: Authorized) -> None:
    with Sweep() as sweep:
        for operation in OPERATIONS:
            for name, schema in operation.parameters.items():
                wrong: list[Any] = [
                    value for kind, values in WRONG.items() if f"'{kind}'" in str(schema) for value in values
                ]
                wrong += ["x", "nothing", "_" * 32] * (name == "cursor")
                wrong += [value for value in beyond(schema) if not isinstance(value, list) and value != ""]
                for value in wrong:
                    with sweep.case(operation, name, value):
                        answer = await authorized.ask(operation, params={name: value})
                        errors = problem_of(answer, "invalid_request", 422)["errors"]
                        assert name in {error["field"].partition(".")[0] for error in errors}


async def test_operations_for_staff_refuse_a_parameter_that_they_do_not_have(root: Admin) -> None:
    """Otherwise, a misspelled filter would match everything."""
    with Sweep() as sweep:
        for operation in FOR_STAFF:
            for query in ("shoe_size=43", "limit=1&LIMIT=1", "=", "%00=1"):
                with sweep.case(operation, query):
                    answer = await operation.ask(root.client, params=query, headers=bearer(root.answer), json={})
                    problem_of(answer, "invalid_request", 422)


async def test_what_does_not_exist_is_not_found_and_an_id_that_is_none_is_refused(authorized: Authorized) -> None:
    with Sweep() as sweep:
        for operation in (it for it in OPERATIONS if it.ids):
            with sweep.case(operation):
                if operation.failures & NOT_FOUND and not re.search("/signatures|/push/", operation.path):
                    answer = await authorized.ask(operation, json=operation.example)
                    assert answer.json()["code"] in operation.failures & NOT_FOUND, answer.text
                if any(it.get("format") == "uuid" for it in operation.ids.values()):
                    answer = await authorized.ask(operation, ids="秘", json=operation.example)
                    assert problem_of(answer, "invalid_request", 422)["errors"][0]["message"] == "Must be a UUID"
                    assert "秘" not in answer.text


async def test_another_method_is_refused_with_those_that_there_are(client: Client) -> None:
    with Sweep() as sweep:
        of_any_method = {"/v1/verify", "/v1/verify/{path}"}
        # `lookup` could be a user's id.
        for path in {it.path for it in OPERATIONS} - {"/v1/users/lookup"} - of_any_method:
            there = {it.method for it in OPERATIONS if it.path == path}
            there |= {"HEAD"} if "GET" in there else set()
            there |= {"POST"} if path in {"/d", "/d/{scene}"} else set()  # the forms of these pages
            for method in {"DELETE", "GET", "PATCH", "POST", "PUT", "BREW"} - there:
                with sweep.case(method, path):
                    answer = await client.request(method, path)
                    problem_of(answer, "method_not_allowed", 405)
                    assert answer.headers["allow"] == ", ".join(sorted(there))
