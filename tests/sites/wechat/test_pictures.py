"""WeChat makes two things for a login: the picture of a scan, and the URL Link of an app."""

import json
import re
from asyncio import gather
from io import BytesIO
from typing import Any

import httpx
import pytest
import segno
from PIL import Image

from tests.metrics import misconfigured
from tests.problems import problem_of
from tests.sites.links import browser_of, press
from tests.sites.street import Street
from tests.sweeps import swept
from tests.world import Body, Client, scene_of
from wxauth_desk.wechat import APPS, Simulator, create_simulator
from wxauth_desk.wechat.api_calls import CodePicture
from wxauth_desk.wechat.controls import FaultRequest
from wxauth_desk.wechat.pictures import draw

EMBEDDED = "cross-origin-resource-policy"


def qr_of(text: str) -> bytes:
    """Return an ordinary QR code of a text, as PNG. It is 450 pixels wide, 10 for each module, with a white border."""
    output, code = BytesIO(), segno.make_qr(text, error="m")
    code.save(output, kind="png", scale=10, border=(45 - len(code.matrix)) // 2)
    return output.getvalue()


async def picture(street: Street, client: Client | None = None, started: Body | None = None) -> httpx.Response:
    """Return the picture of a scan from this replica."""
    return await (client or street.stage.client).get((started or await street.shop.start())["code_image"])


def kind_of(answer: httpx.Response) -> tuple[int, str, str]:
    return answer.status_code, answer.headers["content-type"], answer.headers[EMBEDDED]


async def test_an_ordinary_code_holds_the_link_and_is_there_while_the_scan_is_open(street: Street) -> None:
    client, (started, scan_id) = await street.stage.make(scan_code="link"), await street.claimed()
    answer = await picture(street, client, started)
    assert (kind_of(answer), answer.headers["cache-control"]) == ((200, "image/png", "cross-origin"), "no-store")
    assert answer.content == qr_of(started["verification_uri_complete"])
    await street.phone.decide(scan_id, "deny")
    other = await street.shop.start()
    street.stage.clock.advance(seconds=180)
    for url in (started["code_image"], other["code_image"], f"/v1/scans/{'a' * 22}/code", "/v1/scans/x/code"):
        over = await client.get(url)
        problem_of(over, "not_found", 404)
        assert EMBEDDED not in over.headers
    for path in ("/d", f"/d/{scene_of(started)}", "/livez"):
        assert EMBEDDED not in (await client.get(path)).headers, "no other answer may be embedded elsewhere"


async def test_wechats_code_opens_the_page_and_is_made_once(street: Street) -> None:
    started = await street.shop.start()
    assert street.stage.asked("getwxacodeunlimit") == []
    answers = await gather(*(picture(street, started=started) for _ in range(5)))
    answers.append(await picture(street, await street.stage.make(), started))
    of_page = {"page": "pages/scan/scan", "env_version": "release", "check_path": True, "width": 450}
    assert street.stage.asked("getwxacodeunlimit") == [{"scene": scene_of(started), **of_page}]
    assert {kind_of(answer) for answer in answers} == {(200, "image/jpeg", "cross-origin")}
    said = f"wxa:{APPS[0]['app_id']}?page=pages/scan/scan&scene={scene_of(started)}&env=release"
    assert {answer.content for answer in answers} == {draw(said, is_transparent=False, width=450).content}


@swept(
    ("settings", "wanted"),
    [
        ({"scan_env": "trial"}, {"env_version": "trial", "check_path": False}),
        ({"scan_page": "pages/index/index"}, {"page": "pages/index/index", "check_path": True}),
    ],
)
async def test_the_settings_say_which_page_of_which_version(street: Street, settings: Body, wanted: Body) -> None:
    assert (await picture(street, await street.stage.make(**settings))).headers["content-type"] == "image/jpeg"
    assert street.stage.asked("getwxacodeunlimit")[-1].items() >= wanted.items()


FAULTS = {
    "the page is not published": ({"errcode": 41030}, "WXAUTH_SCAN_PAGE"),
    "the version is not known": ({"errcode": 40097}, "WXAUTH_SCAN_ENV"),
    "too many in this minute": ({"errcode": 45009}, "errcode 45009: too many calls within a minute"),
    "no permission": ({"errcode": 48001}, "isn't allowed to use this API"),
    "a character that may not be there": ({"errcode": 40129}, "errcode 40129"),
    "too long": ({"errcode": 40169}, "errcode 40169"),
    "no connection": ({"drop": True}, "WeChat couldn't be reached"),
    "half a picture": ({"cut_off": True}, "isn't a picture"),
    "a page of a proxy": ({"html": True}, "isn't a picture"),
    "half an answer": ({"garbage": True}, "isn't JSON"),
    "a server error": ({"status": 502}, "502"),
}


@pytest.mark.slow
@swept(("fault", "said"), FAULTS.values(), ids=FAULTS)
async def test_an_ordinary_code_replaces_wechats_and_the_log_says_why(street: Street, fault: Body, said: str) -> None:
    started, before = await street.shop.start(), await misconfigured(street.stage.client)
    street.stage.simulator.fail("getwxacodeunlimit", **fault, times=None)
    answer = await picture(street, started=started)
    assert answer.content == qr_of(started["verification_uri_complete"])
    line = street.stage.logged("mini_program_code_not_made")[-1]
    assert (await misconfigured(street.stage.client) > before) is ("what_to_change" in line), "what the alert sees"
    assert said in f"{line} errcode {line.get('errcode')}"
    assert scene_of(started) not in repr(street.stage.log_lines())
    street.stage.simulator.faults.clear()
    assert (await picture(street, started=started)).content == answer.content  # the picture now belongs to the scan


async def test_the_apps_quota_is_kept_for_others(street: Street) -> None:
    # wxauth accepts a picture even if its content type is JSON.
    street.stage.simulator.fail("getwxacodeunlimit", json_type=True)
    client = await street.stage.make(scan_picture_limit="2/minute")
    kinds = [(await picture(street, client)).headers["content-type"] for _ in range(4)]
    assert kinds == ["image/jpeg"] * 2 + ["image/png"] * 2
    assert len(street.stage.asked("getwxacodeunlimit")) == 2


# Tests of the link with which a phone's browser outside WeChat opens the mini-program.


DAY = 86400


@pytest.fixture
async def linked(street: Street) -> Street:
    """A street whose shop's page is open in a phone's browser."""
    street.stage = await street.stage.replica(scan_link="url")
    await street.change(link=True)
    street.browser = browser_of(street.stage.client)
    return street


async def has_button(linked: Street) -> bool:
    """Return whether the page has a button that leads to the link. wxauth asks WeChat for this link."""
    return "/link" in (await linked.browser.open()).text


async def test_one_link_serves_all_logins_of_an_app(linked: Street) -> None:
    urls = []
    for _ in range(2):
        answer = await press(await linked.browser.show())
        assert answer.status_code == 303, answer.text
        url = re.fullmatch(r"(https://wxaurl\.cn/[\w-]+)\?cq=([\w-]{22})", answer.headers["location"])
        assert url
        urls.append((url[1], url[2]))
    assert (urls[0][0], urls[0][1] == urls[1][1]) == (urls[1][0], False)
    asked = {"path": "pages/scan/scan", "expire_type": 1, "expire_interval": 30, "env_version": "release"}
    assert linked.stage.asked("generate_urllink") == [asked]
    assert "form-action" not in (await linked.browser.open()).headers["content-security-policy"]


async def test_a_link_is_renewed_after_25_days_and_given_for_30_if_wechat_makes_no_other(linked: Street) -> None:
    for after, number in ((0, 1), (25 * DAY - 1, 1), (1, 2), (25 * DAY - 1, 2)):
        linked.stage.clock.advance(seconds=after)
        assert await has_button(linked)
        assert len(linked.stage.asked("generate_urllink")) == number
    linked.stage.simulator.fail("generate_urllink", errcode=-1, times=None)
    for after, is_given in ((5 * DAY, True), (1, False)):
        linked.stage.clock.advance(seconds=after)
        assert await has_button(linked) is is_given


@pytest.mark.parametrize(("errcode", "advice"), [(40002, "SCAN_LINK"), (40165, "SCAN_PAGE"), (85079, "release")])
async def test_without_a_link_there_is_no_button_and_the_log_has_why(linked: Street, errcode: int, advice: str) -> None:
    linked.stage.simulator.faults.append(FaultRequest(api="generate_urllink", errcode=errcode))
    assert [await has_button(linked) for _ in range(2)] == [False, False]
    (line,) = linked.stage.logged("url_link_not_made")
    assert (line["errcode"], line["level"], advice in line["what_to_change"]) == (errcode, "error", True)
    assert len(linked.stage.asked("generate_urllink")) == 1
    linked.stage.clock.advance(seconds=60)
    assert await has_button(linked)


# Tests of the simulator's QR codes.


def drawn_by(simulator: Simulator, wanted: Body | bytes) -> dict[str, Any] | CodePicture:
    token = simulator.access_tokens[APPS[0]["app_id"]].hand_out_stable_token(force=False)["access_token"]
    content = wanted if isinstance(wanted, bytes) else json.dumps(wanted).encode()
    call, _ = simulator.receive("getwxacodeunlimit", {"access_token": token}, content)
    return simulator.answer(call)


@pytest.mark.no_database
@swept(
    ("body", "errcode"),
    [
        ({}, 40169),
        ({"scene": ""}, 40169),
        ({"scene": "a" * 33}, 40169),
        ({"scene": 1}, 40169),
        ({"scene": "a%20b"}, 40129),
        ({"scene": "扫"}, 40129),
        ({"scene": "a", "page": "/pages/scan/scan"}, 41030),
        ({"scene": "a", "page": "pages/scan/scan?x=1"}, 41030),
        ({"scene": "a", "page": "pages/new/new"}, 41030),
        ({"scene": "a", "page": "pages/new/new", "env_version": "trial"}, 41030),
        ({"scene": "a", "page": "pages/new/new", "env_version": "trial", "check_path": False}, None),
        ({"scene": "a", "page": "/pages/new/new", "check_path": False}, 41030),
        *(({"scene": "a", "page": page}, 41030) for page in (["pages/scan/scan"], {"x": 1}, 7, None, True, "")),
        ({"scene": "a", "page": ["x"], "check_path": False}, 41030),
        ({"scene": "a", "env_version": "production"}, 40097),
        ({"scene": "a", "env_version": ["release"]}, 40097),
        ({"scene": "a"}, None),
        (b"nonsense", 40169),
    ],
)
def test_the_simulator_refuses_as_wechat_does(simulator: Simulator, body: Body | bytes, errcode: int | None) -> None:
    answer = drawn_by(simulator, body)
    assert isinstance(answer, CodePicture) if errcode is None else answer["errcode"] == errcode  # type: ignore[index]


@pytest.mark.no_database
async def test_the_simulator_answers_over_http_for_its_tokens_alone(simulator: Simulator) -> None:
    app_id = APPS[0]["app_id"]
    simulator.account(app_id).pages |= {"pages/new/new"}
    token = simulator.access_tokens[app_id].hand_out_stable_token(force=False)["access_token"]
    asked = {"scene": "a", "page": "pages/new/new", "is_hyaline": True}
    transport = httpx.ASGITransport(create_simulator(simulator))
    async with httpx.AsyncClient(transport=transport, base_url="http://wechat.test/wxa") as wechat:
        good, wrong = [await wechat.post(f"/getwxacodeunlimit?access_token={it}", json=asked) for it in (token, "x")]
    assert good.content.startswith(b"\x89PNG")
    assert wrong.json()["errcode"] == 40014


@pytest.mark.no_database
@swept(("width", "drawn"), [(None, 430), (280, 280), (1000, 1000), (1280, 1280)])
@swept("is_hyaline", [False, True])
def test_the_simulators_code_is_as_wide_as_was_asked_for(
    simulator: Simulator, width: int | None, drawn: int, is_hyaline: bool
) -> None:
    wanted = {"scene": "a", "is_hyaline": is_hyaline, **({} if width is None else {"width": width})}
    answer = drawn_by(simulator, wanted)
    assert isinstance(answer, CodePicture)
    assert Image.open(BytesIO(answer.content)).size == (drawn, drawn)


@pytest.mark.no_database
def test_before_the_first_release_only_an_unchecked_code_of_another_version_is_drawn(simulator: Simulator) -> None:
    simulator.account(APPS[0]["app_id"]).pages = frozenset()
    for env in ("release", "trial", "develop"):
        for is_checked in (True, False):
            answer = drawn_by(simulator, {"scene": "a", "env_version": env, "check_path": is_checked})
            assert isinstance(answer, CodePicture) == (env != "release" and not is_checked), (env, is_checked)
