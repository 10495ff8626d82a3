"""A new language needs only one file for each product.

The tests add a third language, whose texts are the Chinese ones with a mark, and find every text in it.
"""

from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest
from babel.messages.pofile import read_po, write_po
from click.testing import CliRunner
from starlette.requests import Request

import wxauth_desk
from tests.cli.tree import every_command
from tests.problems import OF_PERSONS, TITLES
from tests.sweeps import swept
from tests.world import Stage
from wxauth.cli import main
from wxauth.errors import NotFound
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.sites.pages.texts import MESSAGES, MISTAKES, STATES, STATES_ON_A_PHONE
from wxauth_desk import i18n as desk_i18n
from wxauth_desk.page_texts import page_texts
from wxauth_desk.wechat.offered_faults import offered_faults
from wxauth_guard import i18n
from wxauth_guard.errors import InvalidToken
from wxauth_guard.problems import problem

MARK = "繁"


@pytest.fixture(autouse=True)
def third_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add the catalogues of zh_TW next to the existing ones."""
    folder = tmp_path / "locale/zh_TW/LC_MESSAGES"
    folder.mkdir(parents=True)
    for path in (*i18n.catalogue_paths()["zh-CN"], desk_i18n.catalogue_paths()["zh-CN"]):
        with path.open("rb") as chinese, (folder / path.name).open("wb") as written:
            catalog = read_po(chinese, locale="zh_TW")
            for message in catalog:
                message.string = f"{MARK}{message.string}"
            write_po(written, catalog)
    monkeypatch.setattr(i18n, "LOCALES", [*i18n.LOCALES, tmp_path / "locale"])
    monkeypatch.setattr(desk_i18n, "LOCALES", tmp_path / "locale")
    for texts in (i18n, desk_i18n):
        texts.catalogue_paths.cache_clear()
        texts.translations_into.cache_clear()
    yield
    monkeypatch.undo()
    for texts in (i18n, desk_i18n):
        texts.catalogue_paths.cache_clear()
        texts.translations_into.cache_clear()


@pytest.mark.no_database
@swept(
    ("accepted", "language"),
    [
        ("zh-TW", "zh-TW"),
        ("zh_TW", "zh-TW"),
        ("fr, zh-tw;q=0.5, en;q=0.4", "zh-TW"),
        ("zh-HK", "zh-CN"),
        ("zh", "zh-CN"),
        ("en-GB, zh-TW", "en"),
        ("zh-TW;q=0, fr", "en"),
    ],
)
def test_the_first_language_that_there_is_is_taken(accepted: str, language: str) -> None:
    for title in (each for titles in (*TITLES.values(), *OF_PERSONS.values()) for each in titles):
        assert title.translated("zh-TW").startswith(MARK)
    answer = problem(NotFound("nothing"), httpx.Headers({"Accept-Language": accepted}))
    assert answer.headers["Content-Language"] == language


@pytest.mark.no_database
def test_a_guess_that_nobody_has_confirmed_is_no_translation() -> None:
    """`scripts/texts` marks such a guess. gettext skips it, so English is shown."""
    text = NotFound("nothing").title
    file = i18n.LOCALES[-1] / "zh_TW/LC_MESSAGES/wxauth.po"
    with file.open("rb") as written:
        catalog = read_po(written, locale="zh_TW")
    for message in catalog:
        if message.id == text:
            message.flags |= {"fuzzy", "python-brace-format"}
    with file.open("wb") as written:
        write_po(written, catalog)
    i18n.translations_into.cache_clear()
    assert text.translated("zh-TW") == text
    assert InvalidToken("nothing").title.translated("zh-TW").startswith(MARK)


async def test_the_documents_and_the_pages_are_in_it(stage: Stage) -> None:
    client = await stage.make(admin_page="true")
    document = (await client.get("/openapi.json", headers={"Accept-Language": "zh-TW"})).json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert [it["summary"] for it in operations if not it["summary"].startswith(MARK)] == []
    assert document["info"]["description"].startswith(MARK)
    metadata = (await client.get("/.well-known/openid-configuration")).json()
    assert metadata["ui_locales_supported"] == ["zh-TW", "zh-CN", "en"]
    page = await client.get("/d", params={"ui_locales": "zh-TW"})
    assert page.headers["content-language"] == "zh-TW"
    assert [f'lang="{tag}"' in page.text for tag in ("en", "zh-CN")] == [True, True]
    lines = [*STATES.values(), *STATES_ON_A_PHONE.values(), *MISTAKES.values()]
    for message in MESSAGES.values():
        lines += filter(None, (message.title, message.text, message.lead, message.details))
    assert [text for text in lines if not text.translated("zh-TW").startswith(MARK)] == []
    console = (await client.get("/admin/texts.json", params={"language": "zh-TW"})).json()
    assert (console["language"], console["languages"]["zh-TW"]) == ("zh-TW", f"{MARK}中文")
    assert [name for name, text in console["texts"].items() if not text.startswith(MARK)] == []


@pytest.mark.no_database
def test_the_desk_is_in_it() -> None:
    request = Request({"type": "http", "query_string": b"language=zh-TW", "headers": []})
    texts = httpx.Response(
        200, content=bytes(page_texts(Path(wxauth_desk.__path__[0]) / "wechat/page", request).body)
    ).json()["texts"]
    assert [name for name, text in texts.items() if not text.startswith(MARK)] == []
    faults = [fault for each in offered_faults().values() for fault in each]
    assert [fault for fault in faults if not fault["meaning"]["zh-TW"].startswith(MARK)] == []


@pytest.mark.no_database
def test_the_terminal_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_TW.UTF-8")
    for names, command in every_command():
        options = [it for it in command.params if names and isinstance(it, click.Option)]
        assert [it.name for it in options if not (it.help or "").startswith(MARK)] == []
        assert not names or (command.help or "").startswith(MARK)
    assert f"{MARK}用法：" in CliRunner().invoke(main, ["users", "--help"]).output
    assert f"{MARK}错误：" in CliRunner().invoke(main, ["users", "show", "x"]).output


@pytest.mark.no_database
def test_values_stay_as_they_are() -> None:
    text = _("{name}: {rule}", name="is required", rule=_("is required"))
    assert text.translated("zh-CN") == "is required：必填"
    assert Text("{reason}", reason="is required").translated("zh-CN") == "is required"
