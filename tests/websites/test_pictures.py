"""The picture of a scan."""

import json
from asyncio import gather
from io import BytesIO
from typing import Any

import httpx
import pytest
import segno
from PIL import Image

from tests.fakes import Clock, Secrets
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import Client, LogLines, MakeClient, MakeServices, Phone, Site, add_client, scene_of
from wxauth.server.core.services import Services
from wxauth.server.dev.wechat import APPS, Simulator, create_simulator
from wxauth.server.dev.wechat.simulator import DrawnCode, draw


def qr_of(text: str) -> bytes:
    """The ordinary code of a text, as PNG."""
    output = BytesIO()
    segno.make_qr(text, error="m").save(output, kind="png", scale=8)
    return output.getvalue()


async def test_an_ordinary_code_holds_the_link_and_is_there_while_the_scan_is_open(
    make_services: MakeServices, make_client: MakeClient, site: Site, phone: Phone, clock: Clock
) -> None:
    client = make_client(await make_services(scan_code="link"))
    started = await site.start()
    answer = await client.get(started["code_image"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.content == qr_of(started["verification_uri_complete"])
    scan_id = (await phone.scan(started)).json()["id"]
    assert (await client.get(started["code_image"])).status_code == 200
    await phone.decide(scan_id, "deny")
    other = await site.start()
    clock.advance(seconds=180)
    for url in (started["code_image"], other["code_image"], f"/v1/scans/{'a' * 22}/code", "/v1/scans/x/code"):
        over = await client.get(url)
        problem_of(over, "not_found", 404)
        assert "cross-origin-resource-policy" not in over.headers


async def test_no_other_answer_may_be_embedded_elsewhere(client: Client, site: Site) -> None:
    started = await site.start()
    for path in ("/d", f"/d/{scene_of(started)}", "/livez"):
        assert "cross-origin-resource-policy" not in (await client.get(path)).headers


@pytest.fixture
async def simulated(make_client: MakeClient, simulated_services: Services) -> httpx.AsyncClient:
    return make_client(simulated_services)


@pytest.fixture
async def shop(simulated: httpx.AsyncClient, simulated_services: Services, clock: Clock, secrets: Secrets) -> Site:
    """A site whose codes the simulated WeChat makes."""
    credentials = await add_client(
        simulated_services.database, "shop", title="Shop", scopes=["openid"], device=True, now=clock()
    )
    return Site(simulated, "shop", secrets.add(credentials.client_secret))


async def test_wechats_code_opens_the_page_and_is_made_once(
    shop: Site, simulator: Simulator, make_simulated_services: MakeServices, make_client: MakeClient
) -> None:
    started = await shop.start()
    assert simulator.calls_of("getwxacodeunlimit") == []
    answers = await gather(*(shop.client.get(started["code_image"]) for _ in range(5)))
    replica = make_client(await make_simulated_services())
    answers.append(await replica.get(started["code_image"]))
    (call,) = simulator.calls_of("getwxacodeunlimit")
    assert call.json == {
        "scene": scene_of(started),
        "page": "pages/scan/scan",
        "env_version": "release",
        "check_path": True,
    }
    assert {(answer.status_code, answer.headers["content-type"]) for answer in answers} == {(200, "image/jpeg")}
    assert {answer.headers["cross-origin-resource-policy"] for answer in answers} == {"cross-origin"}
    said = f"wxa:{APPS[0]['app_id']}?page=pages/scan/scan&scene={scene_of(started)}&env=release"
    assert {answer.content for answer in answers} == {draw(said, has_transparent_ground=False).content}


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"scan_env": "trial"}, {"env_version": "trial", "check_path": False}),
        ({"scan_page": "pages/index/index"}, {"page": "pages/index/index", "check_path": True}),
    ],
)
async def test_the_settings_say_which_page_of_which_version(
    shop: Site,
    simulator: Simulator,
    make_simulated_services: MakeServices,
    make_client: MakeClient,
    settings: dict[str, str],
    asked: dict[str, Any],
) -> None:
    client = make_client(await make_simulated_services(**settings))
    assert (await client.get((await shop.start())["code_image"])).headers["content-type"] == "image/jpeg"
    (call,) = simulator.calls_of("getwxacodeunlimit")
    assert call.json.items() >= asked.items()


FAULTS = {
    "the page is not published": ({"errcode": 41030}, "WXAUTH_SCAN_PAGE"),
    "the version is not known": ({"errcode": 40097}, "WXAUTH_SCAN_ENV"),
    "too many in this minute": ({"errcode": 45009}, "errcode 45009"),
    "no permission": ({"errcode": 48001}, "may not use this API"),
    "a character that may not be there": ({"errcode": 40129}, "errcode 40129"),
    "too long": ({"errcode": 40169}, "errcode 40169"),
    "no connection": ({"drop": True}, "no answer from WeChat"),
    "half a picture": ({"cut_off": True}, "no picture"),
    "a page of a proxy": ({"html": True}, "no picture"),
    "half an answer": ({"garbage": True}, "not JSON"),
    "a server error": ({"status": 502}, "502"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "said"), FAULTS.values(), ids=FAULTS)
async def test_if_wechat_makes_no_code_an_ordinary_one_is_shown_and_the_reason_is_logged(
    shop: Site, simulator: Simulator, log_lines: LogLines, fault: dict[str, Any], said: str
) -> None:
    started = await shop.start()
    simulator.fail("getwxacodeunlimit", **fault, times=None)
    answer = await shop.client.get(started["code_image"])
    assert answer.content == qr_of(started["verification_uri_complete"])
    (line,) = [line for line in log_lines() if line["event"] == "mini_program_code_not_made"]
    assert said in f"{line} errcode {line.get('errcode')}"
    assert scene_of(started) not in repr(log_lines())
    simulator.faults.clear()
    assert (await shop.client.get(started["code_image"])).content == answer.content  # it is the scan's from now on


async def test_a_picture_that_says_it_is_json_is_a_picture(shop: Site, simulator: Simulator) -> None:
    simulator.fail("getwxacodeunlimit", json_type=True)
    answer = await shop.client.get((await shop.start())["code_image"])
    assert answer.headers["content-type"] == "image/jpeg"


async def test_the_apps_quota_is_kept_for_others(
    shop: Site, simulator: Simulator, make_simulated_services: MakeServices, make_client: MakeClient
) -> None:
    client = make_client(await make_simulated_services(scan_picture_limit="2/minute"))
    kinds = [(await client.get((await shop.start())["code_image"])).headers["content-type"] for _ in range(4)]
    assert kinds == ["image/jpeg"] * 2 + ["image/png"] * 2
    assert len(simulator.calls_of("getwxacodeunlimit")) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
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
        ({"scene": "a", "env_version": "production"}, 40097),
        ({"scene": "a"}, None),
        (b"nonsense", 40169),
    ],
)
async def test_the_simulator_refuses_as_wechat_does(simulator: Simulator, body: Any, errcode: int | None) -> None:
    app_id = APPS[0]["app_id"]
    token = simulator.access_tokens[app_id].hand_out(force=False)["access_token"]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_simulator(simulator)), base_url="http://wechat.test"
    ) as wechat:
        content = body if isinstance(body, bytes) else json.dumps(body)
        answer = await wechat.post(f"/wxa/getwxacodeunlimit?access_token={token}", content=content)
        assert answer.status_code == 200
        if errcode is None:
            assert answer.headers["content-type"] == "image/jpeg"
        else:
            assert answer.json()["errcode"] == errcode
        simulator.account(app_id).pages |= {"pages/new/new"}
        asked = {"scene": "a", "page": "pages/new/new", "is_hyaline": True}
        answer = await wechat.post(f"/wxa/getwxacodeunlimit?access_token={token}", json=asked)
        assert answer.content.startswith(b"\x89PNG")
        assert (await wechat.post("/wxa/getwxacodeunlimit?access_token=x", json=asked)).json()["errcode"] == 40014


@pytest.mark.no_database
@swept(("width", "drawn"), [(None, 430), (280, 280), (1000, 1000), (1280, 1280)])
@swept("is_hyaline", [False, True])
def test_the_simulators_code_is_as_wide_as_was_asked_for(
    simulator: Simulator, width: int | None, drawn: int, is_hyaline: bool
) -> None:
    wanted = {"scene": "a", "is_hyaline": is_hyaline, **({} if width is None else {"width": width})}
    picture = ask_for_code(simulator, wanted)
    assert isinstance(picture, DrawnCode)
    assert Image.open(BytesIO(picture.content)).size == (drawn, drawn)


@pytest.mark.no_database
def test_before_the_first_release_only_an_unchecked_code_of_another_version_is_drawn(simulator: Simulator) -> None:
    simulator.account(APPS[0]["app_id"]).pages = frozenset()
    for env in ("release", "trial", "develop"):
        for is_checked in (True, False):
            answer = ask_for_code(simulator, {"scene": "a", "env_version": env, "check_path": is_checked})
            assert isinstance(answer, DrawnCode) == (env != "release" and not is_checked), (env, is_checked)


def ask_for_code(simulator: Simulator, wanted: dict[str, Any]) -> dict[str, Any] | DrawnCode:
    token = simulator.access_tokens[APPS[0]["app_id"]].hand_out(force=False)["access_token"]
    call, _ = simulator.call("getwxacodeunlimit", {"access_token": token}, json.dumps(wanted).encode())
    return simulator.answer(call)
