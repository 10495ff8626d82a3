"""Failures follow the guides: there is one table of codes, one form of response, and one log line for each."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import Message

from tests.fakes import APP, SECRET_KEY, Secrets
from tests.problems import kinds_of, problem_of
from tests.sweeps import Sweep, swept
from tests.world import Client, LogLines, Stage, unread
from wxauth.service.app import create_app
from wxauth_guard.errors import WxAuthError

MAX_BODY = 64 * 1024
WECHAT = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) MicroMessenger/8.0.44(0x18002c2d)"


@swept("kind", [kind for kind in kinds_of(WxAuthError) if "code" in vars(kind)])
def test_each_class_has_a_title_in_english_and_in_chinese(kind: type[WxAuthError]) -> None:
    assert "title" in vars(kind)
    assert re.fullmatch(r"[A-Z][\w ,'“”]+\.( [A-Z][\w ,'“”]+\.)?", kind.title)
    assert ", please" not in kind.title
    assert re.fullmatch(r"[\u4e00-\u9fff，“”]+。", kind.title.translated("zh-CN"))
    assert max(len(kind.title), 2 * len(kind.title.translated("zh-CN"))) <= 60


# These failures need no special situation. The tests of each situation test the other failures.


@swept(
    ("method", "path", "code", "status", "headers"),
    [
        ("POST", "/v1/login", "invalid_request", 422, {}),
        ("GET", "/v1/nothing", "not_found", 404, {}),
        ("GET", "/", "not_found", 404, {}),
        ("GET", "/v1/login/", "not_found", 404, {}),
        ("OPTIONS", "/livez", "method_not_allowed", 405, {"Allow": "GET, HEAD"}),
        ("BREW", "/docs", "method_not_allowed", 405, {"Allow": "GET, HEAD"}),
        ("POST", "/docs/assets/swagger-ui.css", "method_not_allowed", 405, {"Allow": "GET, HEAD"}),
        ("GET", "/v1/me", "missing_token", 401, {"WWW-Authenticate": "Bearer"}),
    ],
)
async def test_a_failure_is_a_problem_document(
    offline_client: Client, method: str, path: str, code: str, status: int, headers: dict[str, str]
) -> None:
    for language in ("en", "zh-CN"):
        answer = await offline_client.request(method, path, headers={"Accept-Language": language})
        problem_of(answer, code, status)
        assert answer.headers["content-language"] == language
        assert {name: answer.headers.get(name) for name in headers} == headers


AS_JSON = '{"code": "…"} as JSON'
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@swept(
    ("method", "url", "sent", "headers", "words"),
    [
        ("POST", "/v1/login", "", {}, AS_JSON),
        ("POST", "/v1/login?jsCode=x", "{}", {}, f"code: Must be in the body: send {AS_JSON}"),
        ("POST", "/v1/login", "{}", {"X-WX-Code": "x"}, f"code: Must be in the body: send {AS_JSON}"),
        ("POST", "/v1/login", "{}", {"Code": "x"}, f"code: Must be in the body: send {AS_JSON}"),
        ("POST", "/v1/login", "code=x", {}, AS_JSON),
        ("POST", "/v1/login", '"x"', {}, AS_JSON),
        (
            "POST",
            "/v1/login",
            "code=x",
            FORM,
            'Must be JSON, not a form: send {"code": "…"} with Content-Type: application/json',
        ),
        ("POST", "/v1/login", "{}", {"X-Code-Of": "x"}, "code: Field required"),
        ("GET", "/v1/login?code=x", "", {}, f"this path takes POST, with {AS_JSON}"),
        ("GET", "/v1/logout", "", {}, '{"refresh_token": …}'),
        ("GET", "/v1/refresh", "", {"X-WX-Code": "x"}, '{"refresh_token": "…"} as JSON'),
        ("POST", "/v1/refresh?refreshToken=x", "{}", {}, '{"refresh_token": "…"} as JSON'),
    ],
)
async def test_a_body_that_is_missing_or_somewhere_else_is_shown(
    offline_client: Client, method: str, url: str, sent: str, headers: dict[str, str], words: str
) -> None:
    answer = await offline_client.request(method, url, content=sent, headers=headers)
    code, status = ("invalid_request", 422) if method == "POST" else ("method_not_allowed", 405)
    assert words in problem_of(answer, code, status)["detail"]


@swept(
    ("path", "meant"),
    [
        ("/v1/login/", "/v1/login"),
        ("//v1/login", "/v1/login"),
        ("/v1//login//", "/v1/login"),
        ("/%2Fv1/login%2F", "/v1/login"),
        ("/v1/me/", "/v1/me"),
        ("//v1/users//18/sessions/", "/v1/users/{user_id}/sessions"),
        ("/v1/nothing/", None),
        ("/" * 8000, None),
        ("//v1/login" + "/" * 8000, "/v1/login"),
    ],
)
async def test_a_path_of_ours_with_other_slashes_is_named(offline_client: Client, path: str, meant: str | None) -> None:
    detail = problem_of(await offline_client.post(f"http://test{path}"), "not_found", 404)["detail"]
    assert detail == "this path doesn't exist" + (
        f": write {meant}, with single slashes and none at the end" if meant else ""
    )


async def test_a_path_of_ours_is_named_with_the_issuers(stage: Stage) -> None:
    client = await stage.make(issuer="https://auth.test/login")
    for path in ("/login/v1/me/", "/v1/me/"):  # a proxy might have removed the prefix
        assert "write /login/v1/me," in problem_of(await client.get(path), "not_found", 404)["detail"]


# Tests of faults in wxauth itself.


FAULTS_THAT_QUOTE = {
    "a row": "ALTER TABLE users ADD COLUMN shoe_size integer NOT NULL",
    "a value": """
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM NEW.nickname::uuid; RETURN NEW; END';
        CREATE TRIGGER fail BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION fail()""",
}
"""Statements that provoke an error, by the personal data that PostgreSQL quotes in it."""


@pytest.mark.parametrize(("quoted", "language"), [("a row", "en"), ("a value", "zh-CN")])
@pytest.mark.own_database
@pytest.mark.requirement("asvs-13.4.2")
async def test_a_fault_is_logged_without_its_row_and_hidden_outside(stage: Stage, quoted: str, language: str) -> None:
    await stage.rows.execute(FAULTS_THAT_QUOTE[quoted])
    body = {"code": stage.wechat.code_for("alice"), "nickname": "Alice-of-Beijing"}
    answer = await stage.client.post("/v1/login", json=body, headers={"Accept-Language": language})
    problem = problem_of(answer, "internal_error", 500)
    assert answer.headers["content-language"] == language
    for word in ("shoe_size", "asyncpg", "Traceback", ".py", "INSERT"):
        assert word not in answer.text
    lines = stage.log_lines()
    (line,) = (line for line in lines if line["level"] == "error")
    assert (line["event"], line["request_id"]) == ("request_failed", problem["request_id"])
    assert str(line["error"]).startswith("asyncpg.exceptions.")
    assert any(re.search(r"/wxauth/login/\w+\.py:\d+ \w+$", frame) for frame in line["frames"])
    assert body["nickname"] not in str(lines)


# Tests of request bodies.


async def test_a_request_cut_off_by_the_end_of_the_server_is_answered(stage: Stage) -> None:
    asked = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        asked.set()
        return await asyncio.Future()

    stage.wechat.route.mock(side_effect=hang)
    sent: list[Message] = []
    body = json.dumps({"code": stage.wechat.code_for("alice")}).encode()

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/login", "query_string": b""}
    scope["headers"] = [(b"host", b"auth.test")]
    login = asyncio.ensure_future(create_app(stage.services)(scope, receive, send))
    await asked.wait()
    login.cancel()
    with pytest.raises(asyncio.CancelledError):
        await login
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["code"] == "internal_error"


@pytest.mark.parametrize("size", [MAX_BODY, MAX_BODY + 1])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_has_64_kib_at_most(stage: Stage, size: int, is_chunked: bool) -> None:
    body = b'{"code": "%s"}' % stage.wechat.code_for("alice").encode()
    body = body.ljust(size)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, size, 1000):
            yield body[start : start + 1000]

    answer = await stage.client.post("/v1/login", content=chunks() if is_chunked else body)
    assert ("content-length" in answer.request.headers) is not is_chunked
    if size <= MAX_BODY:
        assert answer.status_code == 200
    else:
        problem_of(answer, "payload_too_large", 413)
        assert stage.wechat.calls == []


async def test_a_body_that_says_it_is_too_large_is_not_read(offline_client: Client) -> None:
    answer = await offline_client.post("/v1/login", content=unread(), headers={"Content-Length": str(10**12)})
    problem_of(answer, "payload_too_large", 413)


@swept(
    "body",
    [
        '{"code": "THE_SECRET"',
        '{"code": ["THE_SECRET"]}',
        '{"code": "THE_SECRET' + "x" * 256 + '"}',
        '{"code": {"THE_SECRET": 1}}',
        '{"code": 1, "nickname": ["THE_SECRET"], "avatar_url": "http://user:THE_SECRET@example.com"}',
        '{"code": "THE_SECRET\\ud83d"}',
        '{"code": "c", "app_id": {"THE_SECRET": "THE_SECRET"}}',
        "THE_SECRET",
        '"THE_SECRET"',
        '["THE_SECRET"]',
        "Content-Disposition: form-data; name=THE_SECRET",
    ],
)
@swept("secret", [SECRET_KEY, APP["app_secret"]])
async def test_a_refused_body_is_not_echoed(offline_client: Client, body: str, secret: str) -> None:
    # The offline_client fails if the response contains the secret.
    answer = await offline_client.post("/v1/login", content=body.replace("THE_SECRET", secret))
    problem_of(answer, "invalid_request", 422)


async def test_a_refusal_leaves_one_log_line_without_the_paths_values(
    offline_client: Client, secrets: Secrets, log_lines: LogLines
) -> None:
    token = secrets.add("wxr_QDNMcmVmcmVzaC10b2tlbg")
    answer = await offline_client.get(f"/v1/refresh/{token}?token={token}", headers={"X-Request-ID": "r-1"})
    problem_of(answer, "not_found", 404)
    (line,) = log_lines()
    assert line.pop("timestamp")
    assert line.pop("ms") >= 0
    assert line == {
        "event": "request_refused",
        "level": "info",
        "request_id": "r-1",
        "method": "GET",
        "path": "/v1/refresh/***",
        "status": 404,
        "code": "not_found",
        "detail": "this path doesn't exist",
    }


# Tests of languages and audiences.


LANGUAGES: dict[str, list[str | None]] = {
    "en": [
        *(None, "", "*", "fr", "zh;q=0.5,en;q=0.8", "en,zh", "zh;q=0", "zh;q=2", "zhx", ";;;,,,q=1"),
        *("zh;q=" + "9" * 5000, "x" * 20_000 + ",zh", ",".join(["a-" * 100] * 300)),
    ],
    "zh-CN": [
        *("zh_CN", "zh-CN", "ZH-hans-cn", "zh", "zh-CN,zh;q=0.9,en;q=0.8", "en;q=0.5, zh_TW;q=0.6", "zh,en"),
        *("fr, zh;q=0.1", "fr\nzh;q=0.1", "zh," + "x" * 20_000),
    ],
}
IN_WECHAT: dict[str, list[tuple[str, str | None]]] = {
    "en": [
        *((f"{WECHAT} Language/en", None), (f"{WECHAT} Language/ja", None), (WECHAT, "en")),
        *((f"{WECHAT} Language/zh_CN", "en-GB"), (f"{WECHAT} Language/zh_CN", "fr")),
        *(("Mozilla/5.0 (iPhone) Language/zh_CN", None), ("node", "*"), (f"{WECHAT} Language/en", "*;q=0.5")),
        *((f"{WECHAT} Language/zh_CN", "en, *;q=0.5"), (f"{WECHAT} Language/zh_CN", "*, en;q=0.1")),
    ],
    "zh-CN": [
        *((f"{WECHAT} NetType/WIFI Language/zh_CN", None), (f"{WECHAT} Language/zh_TW ABI/arm64", None)),
        *(
            (f"{WECHAT} Language/zh_CN", each)
            for each in ("*", " * ", "*;q=0.5", "*; q=1", "*\n*", "*, *;q=0.1", "*;q=0", ",")
        ),
        *((WECHAT, "*, zh;q=0.5"), (f"{WECHAT} Language/en", "*, zh;q=0.5")),
        *((f"{WECHAT} Language/zh_HK", ""), (f"{WECHAT} Language/zh", " "), (WECHAT, None)),
        (f"{WECHAT} Language/en", "zh-CN"),
    ],
}
"""The expected language, with the User-Agent and Accept-Language that lead to it."""


@swept(
    ("language", "user_agent", "accepted"),
    [
        *((language, "", accepted) for language, each in LANGUAGES.items() for accepted in each),
        *((language, *given) for language, each in IN_WECHAT.items() for given in each),
    ],
)
async def test_the_title_is_in_the_language_that_the_request_prefers_or_else_in_wechats(
    offline_client: Client, language: str, user_agent: str, accepted: str | None
) -> None:
    lines = [] if accepted is None else accepted.split("\n")
    headers = [("User-Agent", user_agent), *(("Accept-Language", line) for line in lines)]
    answer = await offline_client.get("/nothing", headers=headers)
    problem_of(answer, "not_found", 404)
    assert answer.headers["content-language"] == language


@swept("given", ["a", "0f8fad5b-d9cb-469f-a165-70867728950e", "A.b_c-1", "x" * 128])
@swept("path", ["/livez", "/nothing"])
async def test_a_well_formed_request_id_is_kept(offline_client: Client, given: str, path: str) -> None:
    answer = await offline_client.get(path, headers={"X-Request-ID": given})
    assert answer.headers.get_list("x-request-id") == [given]


@swept("given", [None, "", "x" * 129, "a b", "a\tb", "a/b", "é", "<script>", '"}{"', "a,b"])
async def test_any_other_request_id_is_replaced(offline_client: Client, given: str | None) -> None:
    headers = {} if given is None else {b"X-Request-ID": given.encode()}
    ids = [(await offline_client.get("/livez", headers=headers)).headers["x-request-id"] for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{32}", found) for found in ids)
    assert len(set(ids)) == 2


@pytest.mark.slow
@swept("path", ["/livez", "/readyz", "/.well-known/jwks.json", "/docs", "/openapi.json"])
async def test_head_answers_as_get_does(client: Client, path: str) -> None:
    head, get = await client.head(path), await client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    for answer in (head, get):
        del answer.headers["x-request-id"]
    assert head.headers == get.headers


# Tests of browsers with other origins.

ORIGIN = "https://admin.example.com"


@pytest.fixture
async def cors_client(stage: Stage) -> Client:
    return await stage.make(cors_origins=ORIGIN)


@pytest.mark.own_database
@pytest.mark.slow
async def test_a_configured_origin_may_read_every_answer(stage: Stage, cors_client: Client) -> None:
    await stage.rows.execute(FAULTS_THAT_QUOTE["a row"])
    code = stage.wechat.code_for("alice")
    with Sweep() as sweep:
        for method, path, content, status in (
            ("GET", "/livez", None, 200),
            ("GET", "/v1/me", None, 401),
            ("GET", "/nothing", None, 404),
            ("POST", "/v1/login", "x" * (MAX_BODY + 1), 413),
            ("POST", "/v1/login", f'{{"code": "{code}"}}', 500),
        ):
            with sweep.case(status):
                answer = await cors_client.request(method, path, content=content, headers={"Origin": ORIGIN})
                assert answer.status_code == status
                assert answer.headers["access-control-allow-origin"] == ORIGIN
                assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()


async def test_a_configured_origin_may_ask_first_and_no_other_may_read(client: Client, cors_client: Client) -> None:
    asks = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization, content-type"}
    answer = await cors_client.options("/v1/me", headers={"Origin": ORIGIN, **asks})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert {"GET", "POST", "PATCH", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert answer.headers["x-request-id"]
    for asked, origin in ((client, ORIGIN), (cors_client, "https://evil.example")):
        answer = await asked.get("/livez", headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers
