"""Fixtures that run the checks of `wxauth check` in this process."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.certificates import Authority
from tests.fakes import Secrets
from tests.processes import free_port, serving
from wxauth.checks.result import CheckLevel, CheckResult
from wxauth.checks.runner import check_with
from wxauth.core.clock import utc_now
from wxauth.settings.settings import Settings
from wxauth_desk.wechat import APPS, Simulator, create_simulator

OK, NOTE, BAD = CheckLevel.OK, CheckLevel.NOTE, CheckLevel.BAD
Said = tuple[CheckLevel, *tuple[str, ...]]
"""The level of a line, and words that the line contains."""


class StrictWeChat(Simulator):
    """A simulator that doesn't accept a person's name as a code, as the real WeChat doesn't."""

    def receive(self, api: Any, query: Mapping[str, str], body: bytes) -> Any:
        code = {"js_code": f"no name: {query['js_code']}"} if "js_code" in query else {}
        return super().receive(api, {**query, **code}, body)

    @property
    def asked(self) -> Counter[str]:
        return Counter(call.api for call in self.calls)


@pytest.fixture
def strict_wechat() -> StrictWeChat:
    return StrictWeChat()


@pytest.fixture
def wechat_url(strict_wechat: StrictWeChat) -> Iterator[str]:
    with serving(create_simulator(strict_wechat)) as url:
        yield url


@dataclass(frozen=True)
class Doctor:
    """Runs the checks with any settings by name, and makes sure that no line contains a secret."""

    make_settings: Callable[..., Settings]
    database_url: str
    wechat_url: str
    wechat: StrictWeChat
    secrets: Secrets

    async def __call__(
        self, *, clock: Any = utc_now, timeouts: Any = MappingProxyType({}), **values: Any
    ) -> dict[str, CheckResult]:
        """Run the checks, and return the results by name."""
        nobody = f"http://127.0.0.1:{free_port()}"
        usual = {"apps": APPS, "wechat_base_url": self.wechat_url, "issuer": nobody}
        settings = self.make_settings(**usual | values)
        for app in APPS:
            self.secrets.add(app["app_secret"])
            self.secrets.add(
                self.wechat.access_tokens[app["app_id"]].hand_out_stable_token(force=False)["access_token"]
            )
        results = await check_with(settings, clock=clock, **timeouts)
        for result in results:
            self.secrets.check_log("\n".join(result.text))
            assert not re.search(r"hunter2|\n", "".join(result.text))
            check_chinese(result)
        by_name = {result.name: result for result in results}
        assert len(by_name) == len(results)
        return by_name

    async def says(self, name: str, level: CheckLevel, *words: str, **how: Any) -> None:
        """Run the checks, and assert that this line has this level and contains these words."""
        assert_reported(await self(**how), name, level, *words)


@pytest.fixture
def doctor(
    make_settings: Callable[..., Settings],
    database_url: str,
    wechat_url: str,
    strict_wechat: StrictWeChat,
    secrets: Secrets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Doctor:
    # Each check reads the CA certificates. The file with one authority is faster than the system's, which takes 17 ms.
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path).file))
    return Doctor(make_settings, database_url, wechat_url, strict_wechat, secrets)


def check_chinese(result: CheckResult) -> None:
    """Assert that the Chinese text contains the same settings, commands, addresses and numbers as the English text.

    A text that is only a version number has no translation, because it's the same in both languages.
    """
    assert re.fullmatch(r"[\d.]+\w*", result.text) or re.search("[一-鿿]", result.text.translated("zh-CN")), result
    exact = re.findall(r"WXAUTH_[A-Z_]+|'wxauth [a-z ]+'|https?://[\w.:/\[\]-]*\w|\b\d{4,}\b", result.text)
    assert [part for part in exact if part not in result.text.translated("zh-CN")] == [], result


def assert_reported(results: Mapping[str, CheckResult], name: str, level: CheckLevel, *words: str) -> None:
    """Assert that this line has this level and contains these words."""
    result = results[name]
    assert result.level is level, result
    assert all(word in result.text for word in words), result
