"""A guard reads the proxy variables of the environment in the forms that programs and companies use."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.guard.fakes import BELIEVES_NOBODY, ISSUER, FakeIssuer
from tests.sweeps import swept
from wxauth_guard import proxies
from wxauth_guard.errors import KeysUnavailable
from wxauth_guard.jwks import RemoteKeys
from wxauth_guard.proxies import proxy_for

PROXY = "http://proxy.internal:3128"
COVERED = {
    "https://auth.example.com": [
        *(
            "*",
            "auth.example.com",
            ".example.com",
            "*.example.com",
            "example.com",
            "EXAMPLE.com",
            "https://example.com",
        ),
        *(
            "auth.example.com:443",
            "all://auth.example.com",
            "x, ,auth.example.com",
            "a b,[,auth.example.com",
            "fd00::/8,*",
        ),
    ],
    "https://10.1.2.3:8443/auth": ["10.1.2.3", "10.0.0.0/8", "10.1.2.9/8", "10.1.2.3:8443"],
    "https://[fd07:b51a:cc66:f0::7]": ["fd07:b51a:cc66:f0::/64", "fd00::/8", "[fd07:b51a:cc66:f0::7]", "[fd00::]/8"],
}
NOT_COVERED = {
    "https://auth.example.com": [
        *("", "xauth.example.com", "xample.com", "http://example.com", "auth.example.com:80", "10.0.0.0/8", "::1/128"),
        *("[::1]", "fd07:b51a:cc66:f0::/64", "a b", "com.", "/", "é[", "127.0.0.1,localhost,::1"),
    ],
    "https://10.1.2.3:8443/auth": ["10.1.2.4", "11.0.0.0/8", "10.1.2.3:443", "1.2.3"],
    "https://[fd07:b51a:cc66:f0::7]": ["fd08::/16", "::1/128"],
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in ("http", "https", "all", "no"):
        for name in (f"{kind}_proxy", f"{kind}_PROXY".upper()):
            monkeypatch.delenv(name, raising=False)
    proxies._warn.cache_clear()
    yield
    proxies._warn.cache_clear()


def used_proxy(url: str) -> str | None:
    proxy = proxy_for(url)
    return None if proxy is None else proxy.url


@swept(
    ("is_covered", "url", "entries"),
    [
        (is_covered, url, entries)
        for is_covered, cases in ((True, COVERED), (False, NOT_COVERED))
        for url, each in cases.items()
        for entries in each
    ],
)
def test_what_no_proxy_covers_is_asked_without_one(
    monkeypatch: pytest.MonkeyPatch, is_covered: bool, url: str, entries: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", entries)
    assert used_proxy(url) == (None if is_covered else PROXY)


WRONG = [
    *("ftp://hunter2", "http://user:p#hunter2@proxy", "http://user:20/hunter2@proxy", "http://[", "//"),
    *(
        "http://proxy:99999",
        "http://proxy:0",
        "http://proxy:-1",
        "http://proxy:hunter2",
        "http://proxy:",
        "proxy:99999",
    ),
    *("user:p#hunter2@proxy:3128", "http://user:p?hunter2@proxy:3128", "http://pro xy:3128", " http://proxy:3128"),
    *("socks4://proxy:1080", "socks5://proxy:99999", "http:/proxy:3128", "://proxy:3128"),
]


@swept(
    ("given", "used", "named"),
    [
        ({"HTTPS_PROXY": "127.0.0.1:1"}, "http://127.0.0.1:1", []),
        ({"https_proxy": PROXY, "ALL_PROXY": "ftp://x"}, PROXY, ["ALL_PROXY"]),
        ({"HTTP_PROXY": "ftp://x", "ALL_PROXY": PROXY}, PROXY, ["HTTP_PROXY"]),
        ({"HTTP_PROXY": PROXY}, None, []),
        ({"HTTPS_PROXY": "http://user:p@ss@proxy:3128"}, "http://user:p@ss@proxy:3128", []),
        ({"https_proxy": "socks4://127.0.0.1:1"}, None, ["https_proxy"]),
        *(({"HTTPS_PROXY": wrong, "ALL_PROXY": PROXY}, PROXY, ["HTTPS_PROXY"]) for wrong in WRONG),
    ],
)
def test_a_proxy_that_cannot_be_used_is_left_out_and_named_once(
    caplog: pytest.LogCaptureFixture, given: dict[str, str], used: str | None, named: list[str]
) -> None:
    caplog.clear()
    proxies._warn.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        assert [used_proxy("https://auth.example.com") for _ in range(3)] == [used] * 3
    assert [record.getMessage().split()[0] for record in caplog.records] == named
    assert "hunter2" not in caplog.text


@pytest.mark.slow
@swept("name", ["HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@swept("wrong", WRONG)
@swept("is_internal", [True, False])
def test_a_proxy_that_cannot_be_used_is_named_where_none_is_needed(
    caplog: pytest.LogCaptureFixture, name: str, wrong: str, is_internal: bool
) -> None:
    caplog.clear()
    proxies._warn.cache_clear()
    issuer, internal_url = (ISSUER, "http://127.0.0.1:1") if is_internal else ("http://127.0.0.1:1", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, wrong)
        guard = RemoteKeys(issuer, internal_url=internal_url, ssl_context=BELIEVES_NOBODY)
        with pytest.raises(KeysUnavailable, match=r"Connection refused$"):
            guard.find_sync("kid")
    named = [record.getMessage().split()[0] for record in caplog.records if record.name == proxies._log.name]
    assert named == [name]
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_a_proxy_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setenv(name, "http://user:hunter2@127.0.0.1:1")
    with pytest.raises(KeysUnavailable, match=rf"\(by the proxy of {name}\)"):
        await RemoteKeys(ISSUER, ssl_context=BELIEVES_NOBODY).find("kid")
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("entry", ["[::1]:8080", "[::1", "::1]", "[[::1]]", "[x]", "1.2.3.4/33", "hunter 2"])
def test_an_entry_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, entry: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", entry)
    assert used_proxy("https://[::1]:8080") == PROXY
    assert "NO_PROXY has entries that cannot be read" in caplog.text


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
async def test_entries_that_cannot_be_read_neither_stop_a_guard_nor_are_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, issuer: FakeIssuer, name: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv(name, "localhost,fd07:b51a:cc66:f0::/64,[::1],::1/128,hunter 2,[x],auth.test")
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            assert await RemoteKeys(ISSUER, ssl_context=BELIEVES_NOBODY).find(issuer.key.kid)
    assert [record.getMessage() for record in caplog.records] == [
        f"{name} has entries that cannot be read, which are left out"
    ]
