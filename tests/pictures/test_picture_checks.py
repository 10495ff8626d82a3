"""`AVATAR_CHECK`: WeChat's verdicts on pictures, which come by message push after the upload."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest

from tests.metrics import scrape
from tests.pictures.test_thumbnails import encoded, plain
from tests.world import Body, Stage, bearer, body_of, recorded, until
from wxauth.server.core.background import Background
from wxauth.server.dev.wechat import APPS, Api, Simulator, create_simulator
from wxauth.server.dev.wechat.controls import openid_of
from wxauth.server.dev.wechat.push import Format, make_verdict
from wxauth.server.housekeeping.housekeeping import sweep_now
from wxauth.server.pictures.avatars import ANSWERED_WITHIN
from wxauth.server.service.app import create_api

pytestmark = pytest.mark.usefixtures("simulated")

APP, OTHER_APP = APPS
APP_ID = APP["app_id"]
CHECK: Api = "media_check_async"


@pytest.fixture(autouse=True)
def _silent(simulator: Simulator) -> None:
    """The tests push the verdicts themselves."""
    for app in APPS:
        simulator.account(app["app_id"]).picture_verdict = None


async def upload(stage: Stage, login: Body, colour: int = 0) -> str:
    file = encoded(plain(colour=(colour, 0, 0)))
    answer = body_of(await stage.client.post("/v1/me/avatar", files={"file": ("a.jpg", file)}, headers=bearer(login)))
    await stage.services[Background].drain()
    return answer["avatar_url"]


async def trace_ids(stage: Stage) -> list[str]:
    """The checks under way, the oldest first."""
    found = await stage.rows.fetch("SELECT trace_id FROM picture_checks ORDER BY at, ctid")
    return [row["trace_id"] for row in found]


async def push_verdict(
    stage: Stage,
    trace_id: str,
    suggest: str = "risky",
    label: int = 20002,
    *,
    app: Body = APP,
    format: Format = "json",
    **fields: object,
) -> None:
    now = int(stage.clock().timestamp())
    verdict = make_verdict(trace_id, suggest, label, app_id=app["app_id"], now=now)
    await stage.push({**verdict, **fields}, app, format=format)


async def events_of(stage: Stage) -> list[tuple[str, str, Body]]:
    """The events, without those of logins and of uploads."""
    return await recorded(stage.rows, "type, actor, data", "actor = 'system'")


async def checks_of(stage: Stage) -> dict[tuple[str, ...], float]:
    scraped = await scrape(stage.client)
    return scraped.counted("wxauth_policy_checks_total", "outcome", "errcode", policy="avatar")


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Alice's picture, which WeChat has been asked about."""

    stage: Stage
    alice: Body
    url: str
    trace_id: str

    async def shown(self) -> str | None:
        return (await self.stage.user(self.alice))["avatar_url"]


async def uploaded_to(stage: Stage, *, app: Body = APP) -> Uploaded:
    alice = await stage.login("alice", app_id=app["app_id"])
    url = await upload(stage, alice)
    [trace_id] = await trace_ids(stage)
    return Uploaded(stage, alice=alice, url=url, trace_id=trace_id)


@pytest.fixture
async def uploaded(stage: Stage) -> Uploaded:
    """With the policy `block`."""
    return await uploaded_to(await stage.replica(avatar_check="block"))


FLAGGED = ("avatar.flagged", "system", {"label": 20002})
REMOVED = ("user.profile_changed", "system", {"fields": ["avatar_url"]})


async def test_without_the_setting_nothing_is_asked_or_kept(stage: Stage) -> None:
    stage = await stage.replica()
    await upload(stage, await stage.login("alice"))
    await push_verdict(stage, "a-trace")
    assert stage.asked(CHECK) == []
    assert await trace_ids(stage) == []


@pytest.mark.parametrize("policy", ["flag", "block"])
async def test_an_upload_in_a_mini_program_is_given_to_wechat(stage: Stage, policy: str) -> None:
    stage = await stage.replica(avatar_check=policy)
    url = await upload(stage, await stage.login("alice"))
    openid = openid_of("alice", APP_ID)
    wanted = {"media_url": url, "media_type": 2, "version": 2, "scene": 1, "openid": openid}
    assert stage.asked(CHECK) == [wanted]


@pytest.mark.slow
@pytest.mark.parametrize("app", APPS, ids=["plain", "aes"])
@pytest.mark.parametrize("format", ["json", "xml"])
async def test_a_risky_picture_is_flagged_and_removed_once(stage: Stage, app: Any, format: Format) -> None:
    uploaded = await uploaded_to(await stage.replica(avatar_check="block"), app=app)
    other = await uploaded.stage.replica()  # any replica takes the verdict
    for _ in range(2):
        await push_verdict(other, uploaded.trace_id, app=app, format=format)
    assert await events_of(uploaded.stage) == [FLAGGED, REMOVED]
    assert await uploaded.shown() is None
    assert (await uploaded.stage.client.get(uploaded.url)).status_code == 404
    assert await uploaded.stage.number("picture_checks WHERE openid IS NOT NULL") == 0
    [line] = uploaded.stage.logged("avatar_flagged")
    assert (line["user_id"], line["label"]) == (uploaded.alice["user"]["id"], 20002)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "suggest", "label", "outcome"),
    [("flag", "risky", 20002, "flagged"), ("block", "review", 21000, "flagged"), ("block", "pass", 100, "pass")],
)
async def test_any_other_verdict_leaves_the_picture(
    stage: Stage, policy: str, suggest: str, label: int, outcome: str
) -> None:
    uploaded = await uploaded_to(await stage.replica(avatar_check=policy))
    await push_verdict(uploaded.stage, uploaded.trace_id, suggest, label)
    flags = [] if suggest == "pass" else [("avatar.flagged", "system", {"label": label})]
    assert await events_of(uploaded.stage) == flags
    assert await uploaded.shown() == uploaded.url
    assert await checks_of(uploaded.stage) == {(outcome, ""): 1}
    assert await trace_ids(uploaded.stage) == []


async def test_a_picture_replaced_meanwhile_is_flagged_and_the_new_one_stays(uploaded: Uploaded) -> None:
    url = await upload(uploaded.stage, uploaded.alice, 200)
    await push_verdict(uploaded.stage, uploaded.trace_id)
    assert await events_of(uploaded.stage) == [FLAGGED]
    assert await uploaded.shown() == url
    assert len(await trace_ids(uploaded.stage)) == 1  # the new picture's


async def test_a_push_of_another_app_or_an_unknown_trace_id_changes_nothing(uploaded: Uploaded) -> None:
    await push_verdict(uploaded.stage, uploaded.trace_id, app=OTHER_APP)
    await push_verdict(uploaded.stage, "unknown")
    assert await events_of(uploaded.stage) == []
    assert await uploaded.shown() == uploaded.url
    await push_verdict(uploaded.stage, uploaded.trace_id)
    assert await events_of(uploaded.stage) == [FLAGGED, REMOVED]


async def test_a_verdict_that_comes_before_the_answer_counts(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = await stage.replica(avatar_check="block")
    alice = await stage.login("alice")
    monkeypatch.setattr("wxauth.server.dev.wechat.simulator.new_rid", lambda: "the-trace")
    await push_verdict(stage, "the-trace")
    assert await events_of(stage) == []
    await upload(stage, alice)
    assert await events_of(stage) == [FLAGGED, REMOVED]
    assert (await stage.user(alice))["avatar_url"] is None


async def test_a_check_that_wechat_could_not_make_is_counted(uploaded: Uploaded) -> None:
    await push_verdict(uploaded.stage, uploaded.trace_id, errcode=-1008, result={})
    assert await uploaded.shown() == uploaded.url
    assert await events_of(uploaded.stage) == []
    assert await trace_ids(uploaded.stage) == []
    assert await checks_of(uploaded.stage) == {("wechat_bad_response", "other"): 1}


async def test_a_check_without_a_verdict_ends_after_half_an_hour(uploaded: Uploaded) -> None:
    await push_verdict(uploaded.stage, "unknown")
    uploaded.stage.clock.now += ANSWERED_WITHIN
    await sweep_now(uploaded.stage.services)
    assert len(await trace_ids(uploaded.stage)) == 2
    uploaded.stage.clock.advance(seconds=1)
    await sweep_now(uploaded.stage.services)
    assert await trace_ids(uploaded.stage) == []
    lines = uploaded.stage.logged("pictures_without_verdict")
    assert [(line["app_id"], line["pictures"]) for line in lines] == [(APP_ID, 1)]
    assert await checks_of(uploaded.stage) == {("no_verdict", ""): 1}
    assert await uploaded.stage.rows.fetchval("SELECT avatar_url FROM users") == uploaded.url


async def test_an_erased_persons_checks_are_erased(uploaded: Uploaded) -> None:
    await uploaded.stage.rows.execute("DELETE FROM users")
    assert await trace_ids(uploaded.stage) == []
    await push_verdict(uploaded.stage, uploaded.trace_id)
    assert await events_of(uploaded.stage) == []


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [({"errcode": 61010}, ("wechat_bad_response", "61010")), ({"errcode": 48001}, ("wechat_misconfigured", "48001"))],
)
async def test_an_upload_succeeds_whatever_wechat_says(stage: Stage, fault: Body, outcome: tuple[str, str]) -> None:
    stage = await stage.replica(avatar_check="block")
    stage.simulator.fail(CHECK, **fault)
    alice = await stage.login("alice")
    url = await upload(stage, alice)
    assert (await stage.user(alice))["avatar_url"] == url
    assert await trace_ids(stage) == []
    assert await checks_of(stage) == {outcome: 1}


async def test_the_simulator_pushes_the_verdict_that_its_account_has(stage: Stage) -> None:
    stage = await stage.replica(avatar_check="block")
    await upload(stage, await stage.login("alice"))
    stage.simulator.account(APP_ID).picture_verdict = "risky"
    [asked] = stage.simulator.calls_of(CHECK)
    app = create_simulator(stage.simulator, push_transport=httpx.MockTransport(stage.client.send))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wechat.test") as wechat:
        answer = await wechat.post("/wxa/media_check_async", params=dict(asked.query), content=asked.body)
        trace_id = answer.json()["trace_id"]
        kept = "SELECT suggest = 'risky' FROM picture_checks WHERE trace_id = $1"
        await until(partial(stage.rows.fetchval, kept, trace_id))


async def test_a_service_that_starts_names_the_mini_programs_without_push(stage: Stage) -> None:
    stage = await stage.replica(avatar_check="flag", apps=[APP, {"app_id": "wx0", "app_secret": "x"}])
    app = create_api(stage.services)
    async with app.router.lifespan_context(app):
        pass
    assert [(line["app_id"], line["level"]) for line in stage.logged("no_push")] == [("wx0", "warning")]
