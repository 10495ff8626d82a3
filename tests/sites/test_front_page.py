"""The page at `/`, which a browser gets, and the problem document, which a program gets."""

import re

import httpx
import pytest

from tests.problems import problem_of
from tests.world import Stage

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
TITLES = {"en": "This is a login service", "zh-CN": "这里是登录服务"}
WECHAT = "Mozilla/5.0 (iPhone) MicroMessenger/8.0.44 NetType/WIFI Language/zh_CN"


def title_of(page: httpx.Response) -> str:
    assert page.status_code == 200, page.text
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert {"Accept", "Accept-Language"} <= {*page.headers["vary"].split(", ")}
    assert page.headers["cache-control"] == "no-store"
    [title] = re.findall("<h1>(.*)</h1>", page.text)
    return title


@pytest.mark.parametrize(
    "accept",
    [
        CHROMIUM,
        "text/html",
        "TEXT/HTML; q=0.9",
        "application/json;q=0.5, text/html",
        "application/json, text/html",
        "text/html;q=0.1,*/*",
    ],
)
async def test_a_browser_that_opens_the_service_gets_a_page_in_its_language(stage: Stage, accept: str) -> None:
    for language, title in TITLES.items():
        page = await stage.client.get("/", headers={"Accept": accept, "Accept-Language": language})
        assert title_of(page) == title
        assert page.headers["content-language"] == language
    page = await stage.client.get("/", headers={"Accept": accept, "User-Agent": WECHAT})
    assert title_of(page) == TITLES["zh-CN"]


async def test_the_page_leads_only_to_its_other_language(stage: Stage) -> None:
    page = await stage.client.get("/?client_id=shop&x=1", headers={"Accept": CHROMIUM, "Accept-Language": "en"})
    [link] = re.findall('<a href="(.*?)"', page.text)
    assert title_of(await stage.client.get(f"/{link}", headers={"Accept": CHROMIUM})) == TITLES["zh-CN"]
    assert "shop" not in page.text
    assert not re.search("wxauth|admin|docs|script", re.sub("<link.*?>", "", page.text))


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/json",
        "text/*",
        "text/html;q=0",
        "text/html;q=0.0, */*",
        "text/html;q=0.5, application/json",
        "application/problem+json, text/html;q=0.9",
        "text/htmlx",
        "application/xhtml+xml",
        "x" * 1020 + ",text/html",
        "",
    ],
)
async def test_a_program_is_told_that_there_is_nothing(stage: Stage, accept: str) -> None:
    refusal = await stage.client.get("/", headers={"Accept": accept})
    problem_of(refusal, "not_found", 404)
    assert refusal.json()["detail"] == "this path doesn't exist"
    assert {"Accept", "Accept-Language"} <= {*refusal.headers["vary"].split(", ")}


async def test_only_reading_gets_the_page(stage: Stage) -> None:
    head = await stage.client.head("/", headers={"Accept": CHROMIUM})
    page = await stage.client.get("/", headers={"Accept": CHROMIUM})
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(page.content)))
    assert (await stage.client.head("/")).status_code == 404
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        problem_of(await stage.client.request(method, "/", headers={"Accept": CHROMIUM}), "not_found", 404)
    for path in ("/x", "/index.html", "/v1/"):
        problem_of(await stage.client.get(path, headers={"Accept": CHROMIUM}), "not_found", 404)


@pytest.mark.parametrize("path", ["/auth", "/auth/", "/"])
async def test_the_page_is_at_the_path_of_an_issuer(stage: Stage, path: str) -> None:
    client = await stage.make(issuer="https://auth.test/auth")
    page = await client.get(path, headers={"Accept": CHROMIUM})
    assert title_of(page) == TITLES["en"]
    for picture in set(re.findall('(?:src|href)="(/.*?)"', page.text)):
        assert picture.startswith("/auth/")
        assert (await client.get(picture)).status_code == 200
    problem_of(await client.get(path), "not_found", 404)


async def test_a_path_that_only_begins_like_the_issuers_has_no_page(stage: Stage) -> None:
    client = await stage.make(issuer="https://auth.test/auth")
    for path in ("/auth/x", "/authx", "/a"):
        problem_of(await client.get(path, headers={"Accept": CHROMIUM}), "not_found", 404)
