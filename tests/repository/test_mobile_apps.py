"""iOS, Android and WeChat's SDK can read the entries that docs/manage/doors.md shows for mobile apps."""

import plistlib
import re
from xml.etree import ElementTree

import pytest

from tests.docs import ROOT, block, both_languages, guide

APP = "wx2b3c4d5e6f7a8b9c"
LINK = "https://shop.example.com/app/"
pytestmark = pytest.mark.no_database


@both_languages
def test_ios_may_ask_for_wechat_and_return(language: str) -> None:
    page = guide("doors", language)
    entries = plistlib.loads(f'<plist version="1.0"><dict>{block(page, "LSApplication")}</dict></plist>'.encode())
    assert entries["LSApplicationQueriesSchemes"] == ["weixin", "weixinULAPI", "weixinURLParamsAPI"]
    [url_type] = entries["CFBundleURLTypes"]
    assert url_type == {"CFBundleURLName": "weixin", "CFBundleURLSchemes": [APP]}
    assert LINK in (ROOT / page).read_text()


@both_languages
def test_android_sees_wechat(language: str) -> None:
    namespace = "http://schemas.android.com/apk/res/android"
    shown = block(guide("doors", language), "<queries>")
    manifest = ElementTree.fromstring(f'<manifest xmlns:android="{namespace}">{shown}</manifest>')
    assert [found.get(f"{{{namespace}}}name") for found in manifest.iterfind("queries/package")] == ["com.tencent.mm"]


def test_the_examples_register_with_the_link_of_the_page() -> None:
    for name in ("WeChatLogin.swift", "wechatLogin.ts", "wechat_login.dart"):
        text = (ROOT / "examples/mobile" / name).read_text()
        assert re.search(rf"(?i)register(?:App|Api)\(.*{APP}.*{LINK}['\"]\)", text), name
