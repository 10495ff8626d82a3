"""`/docs` and `/openapi.json` are complete, and load nothing from other hosts."""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from pydantic import BaseModel, TypeAdapter

from tests.docs import access, openapi
from tests.sweeps import Sweep, swept
from tests.world import Client, Stage
from wxauth.service.app import create_api
from wxauth.web.direct import DirectRoute

DOCUMENT = openapi()
FORMATS = FormatChecker()

OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
each_operation = swept("operation", OPERATIONS.values(), ids=OPERATIONS)


@FORMATS.checks("date-time", raises=ValueError)  # type: ignore[untyped-decorator]
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


CREDENTIALS: dict[str, Any] = {
    "anybody": [{}],
    "user?": [{"wxauth": []}, {}],
    "client": [{"service_client": []}],
    "client?": [{"service_client": []}, {}],
}


@pytest.mark.requirement("asvs-8.1.1")
def test_every_operation_has_its_own_name_and_asks_for_its_credentials() -> None:
    scheme = DOCUMENT["components"]["securitySchemes"]["wxauth"]
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")
    assert {name: (it["operationId"], it.get("security", [{}])) for name, it in OPERATIONS.items()} == {
        name: (its_id, CREDENTIALS.get(who[0], [{"wxauth": []}])) for name, (its_id, who) in access().items()
    }


@each_operation
def test_every_operation_has_a_description_and_an_example(operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    if "204" not in operation["responses"]:
        answer = operation["responses"]["200"]
        assert answer.get("headers") or all(content["example"] for content in answer["content"].values())


def bodies(kind: type[BaseModel] = BaseModel) -> Iterator[type[BaseModel]]:
    for each in kind.__subclasses__():
        yield from (each, *bodies(each)) if each.__module__.startswith("wxauth.") else bodies(each)


def lax_parts(schema: Any) -> Iterator[Any]:
    """Yield the parts of a core schema that accept a number as a boolean, or a boolean as a number."""
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list | tuple) else ():
        yield from lax_parts(part)
    if isinstance(schema, dict) and schema.get("type") in ("bool", "int", "float") and not schema.get("strict"):
        yield schema


def test_no_body_takes_zero_for_false_or_true_for_one() -> None:
    routes = (each for each in create_api().routes if isinstance(each, DirectRoute))
    taken: set[Any] = {route.body_field.field_info.annotation for route in routes if route.body_field is not None}
    assert {kind for kind in taken if any(lax_parts(TypeAdapter(kind).core_schema))} == set()
    assert len(taken) > 20


@each_operation
def test_every_example_is_of_the_form_that_is_documented(operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            if content.get("schema", {}).get("$ref") == "#/components/schemas/Problem":
                assert all(str(example["status"]) == status for example in _examples(content))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        if "properties" in content["schema"]:
            continue
        names = re.findall(r"/schemas/(\w+)'", str(content["schema"]))
        assert len(names) == 1
        (example,) = DOCUMENT["components"]["schemas"][names[0]]["examples"]
        [body] = {kind for kind in bodies() if kind.__name__ == names[0]}
        body.model_validate(example)


@pytest.mark.slow
def test_every_schema_default_and_example_is_valid_by_the_schema_around_it() -> None:
    document = json.loads(json.dumps(DOCUMENT))
    checked = Counter[str]()
    with Sweep() as sweep:
        for place, schema in _schemas(document):
            Draft202012Validator.check_schema(schema)
            whole = Draft202012Validator({**schema, "components": document["components"]}, format_checker=FORMATS)
            for kind, value in _values(schema):
                checked[kind] += 1
                with sweep.case(kind, place):
                    whole.validate(value)
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for content in (content for body in bodies for content in body.get("content", {}).values()):
                whole = Draft202012Validator(
                    {**content.get("schema", {}), "components": document["components"]}, format_checker=FORMATS
                )
                for example in _examples(content):
                    checked["of a body"] += 1
                    with sweep.case(operation["operationId"]):
                        whole.validate(example)
    assert all(checked[kind] > 10 for kind in ("default", "example", "of a body")), checked


@pytest.mark.parametrize("path", ["/v1/authorize", "/v1/end_session"])
def test_the_docs_of_a_page_for_browsers_list_its_refusals(path: str) -> None:
    operation = DOCUMENT["paths"][path]["get"]
    assert {str(status) for status in operation["responses"]} == {"200", "303", "400", "429", "500", "503"}
    assert list(operation["responses"]["400"]["content"]) == ["text/html"]


@swept(
    ("path", "method", "codes"),
    [
        (
            "/v1/refresh",
            "post",
            "invalid_request payload_too_large invalid_refresh_token refresh_token_expired refresh_token_reused "
            "session_replaced session_revoked account_disabled storage_unavailable internal_error",
        ),
        (
            "/v1/me/phone",
            "post",
            "invalid_request payload_too_large unknown_app invalid_code code_used phone_taken wechat_user_blocked "
            "rate_limited wechat_rate_limited wechat_unavailable wechat_timeout wechat_bad_response "
            "wechat_misconfigured missing_token invalid_token token_expired keys_unavailable storage_unavailable "
            "wrong_app_kind insufficient_scope internal_error",
        ),
        ("/.well-known/jwks.json", "get", "keys_unavailable internal_error"),
    ],
)
def test_an_operation_lists_its_failures_and_no_others(path: str, method: str, codes: str) -> None:
    """`check_declared` checks the opposite, namely that each failure that a test provokes is listed."""
    responses = DOCUMENT["paths"][path][method]["responses"].values()
    problems = [
        response["content"].get("application/problem+json", {}) for response in responses if "content" in response
    ]
    assert {code for problem in problems for code in problem.get("examples", {})} == set(codes.split())


def test_an_operation_with_a_path_parameter_lists_the_400_of_control_characters() -> None:
    for name, operation in OPERATIONS.items():
        assert "{" not in name or "400" in operation["responses"], name
    problems = OPERATIONS["GET /v1/admin/users/{user_id}/export"]["responses"]["400"]["content"]
    assert list(problems["application/problem+json"]["examples"]) == ["invalid_request"]
    avatars = OPERATIONS["GET /v1/avatars/{file_name}"]["responses"]["400"]["content"]["application/problem+json"]
    assert "control characters" in avatars["examples"]["invalid_request"]["value"]["detail"]


def test_a_list_of_users_promises_nothing_that_only_one_user_is_shown_with() -> None:
    listed, whole = (DOCUMENT["components"]["schemas"][name] for name in ("ListedUserAnswer", "UserDetailAnswer"))
    of_one = {"former_ids", "former_external_ids", "sessions", "ended_sessions", "consents"}
    assert whole["properties"].keys() - listed["properties"].keys() == of_one


def test_every_reference_has_a_target() -> None:
    references = set(re.findall(r"'\$ref': '([^']+)'", str(DOCUMENT)))
    assert references
    for reference in references:
        found: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "arrives_at"), [("", ""), ("/auth", "/auth"), ("/auth", "")])
async def test_the_docs_page_loads_everything_from_the_service(stage: Stage, path: str, arrives_at: str) -> None:
    client = await stage.make(issuer=f"https://auth.test{path}")

    async def get(public_path: str) -> httpx.Response:
        answer = await client.get(arrives_at + public_path.removeprefix(path))
        assert answer.status_code == 200, public_path
        return answer

    page = await get(f"{path}/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(directive.split(" ", 1) for directive in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert policy["script-src"] == " ".join(("'self'", *(f"'sha256-{digest}'" for digest in digests)))
    assert "://" not in page.text
    links = re.findall(r"""(?:src|href)=["']([^"']+)|url: '([^']+)""", page.text)
    found = {link or url: (await get(link or url)).headers["content-type"] for link, url in links}
    assert found == {
        f"{path}/docs/assets/swagger-ui.css": "text/css; charset=utf-8",
        f"{path}/docs/assets/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
        f"{path}/v1/pages/icon.svg": "image/svg+xml",
        f"{path}/openapi.json": "application/json",
    }
    document = (await get(f"{path}/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert document.get("servers", []) == ([{"url": path}] if path else [])


@pytest.mark.slow
async def test_a_browser_that_prefers_chinese_gets_the_descriptions_in_chinese(offline_client: Client) -> None:
    english, chinese, usual = [
        await offline_client.get("/openapi.json", headers={"Accept-Language": language})
        for language in ("en-GB,en;q=0.9,zh;q=0.5", "zh-CN,zh;q=0.9,en;q=0.8", "")
    ]
    assert [answer.headers["content-language"] for answer in (english, chinese, usual)] == ["en", "zh-CN", "en"]
    assert chinese.headers["vary"] == "Accept-Language, User-Agent"
    assert english.json() == usual.json() == json.loads(json.dumps(DOCUMENT))
    operations = [operation for path in chinese.json()["paths"].values() for operation in path.values()]
    assert [operation["summary"] for operation in operations if not re.search("[一-鿿]", operation["summary"])] == []
    assert len({operation["summary"] for operation in operations}) == len(operations)
    assert [operation["tags"] for operation in operations if not re.search("[一-鿿]", operation["tags"][0])] == []
    page = await offline_client.get("/docs", headers={"Accept-Language": "zh-CN"})
    assert '<html lang="zh-CN">' in page.text
    assert re.search("[一-鿿]", chinese.json()["info"]["description"])


async def test_an_asset_that_has_not_changed_is_not_sent_again(offline_client: Client) -> None:
    path = "/docs/assets/swagger-ui.css"
    etag = (await offline_client.get(path)).headers["etag"]
    assert (await offline_client.get(path, headers={"If-None-Match": etag})).status_code == 304


@pytest.mark.parametrize("name", ["nothing.js", "..%2f__init__.py", "%2e%2e/__init__.py", "..\\__init__.py"])
@pytest.mark.requirement("asvs-13.4.3")
async def test_nothing_but_the_assets_is_served(offline_client: Client, name: str) -> None:
    assert (await offline_client.get(f"/docs/assets/{name}")).status_code == 404


def _schemas(node: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema of the document, including nested schemas."""
    if isinstance(node, list):
        for each in node:
            yield from _schemas(each, place)
    elif isinstance(node, dict):
        for name, each in node.items():
            if name in ("example", "examples", "default"):
                continue
            if name == "schema":
                yield f"{place}/schema", each
            elif name in ("schemas", "properties"):
                yield from ((f"{place}/{name}/{it}", schema) for it, schema in each.items())
            yield from _schemas(each, f"{place}/{name}")


def _values(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if "default" in schema:
        yield "default", schema["default"]
    for example in schema.get("examples", ()):
        yield "example", example


def _examples(content: dict[str, Any]) -> Iterator[Any]:
    if "example" in content:
        yield content["example"]
    for example in content.get("examples", {}).values():
        yield example["value"]


def test_a_body_that_may_be_left_out_is_not_said_to_be_required() -> None:
    assert "required" not in DOCUMENT["paths"]["/v1/logout"]["post"]["requestBody"]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/v1/admin/users", {"status", "role", "seen_before", "limit"}),
        ("/v1/admin/events", {"user_id", "since", "until", "limit"}),
    ],
)
def test_a_parameter_that_may_be_empty_is_documented_as_such(path: str, names: set[str]) -> None:
    parameters = {it["name"]: it["schema"] for it in DOCUMENT["paths"][path]["get"]["parameters"]}
    assert {name for name, schema in parameters.items() if {"const": ""} in schema.get("anyOf", [])} == names
