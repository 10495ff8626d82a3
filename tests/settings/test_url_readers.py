"""wxauth and the program that follows a URL agree on its host.

wxauth judges a URL before a browser or httpx follows it. Each accepted URL is also read by the URL parser of Node,
which is that of browsers, and by httpx.
"""

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import TypeAdapter

from tests.programs import needs
from wxauth.clients.redirect_uris import check_uri, is_local, is_registered, origin_of, scheme_of_app
from wxauth.outbound.urls import _scheme_and_name
from wxauth.settings.urls import HookUrl, IssuerUrl, SecureUrl, Url, host_of, is_url_without_user, plain_url
from wxauth_guard.urls import is_http_url, is_loopback, is_secure

pytestmark = [pytest.mark.node, pytest.mark.no_database]
SCHEMES = ("https", "http", "HTTPS", "htTp", "com.example.app", "javascript", "ws")
AFTER_SCHEME = ("://",) * 9 + (":/", ":", ":///", ":\\\\", "://\t", ":\n//")
USERS = ("",) * 9 + ("a@", "a:b@", "@", "evil.example@", "shop.example.com:80@")
HOSTS = (
    *("shop.example.com", "Shop.Example.COM", "shop.example.com.", "a..b.com", ".a.com", "", "*.a.com", "a b.com"),
    *("localhost", "localhost.", "127.0.0.1", "127.0.0.1.", "127.1", "127.0.0.01", "0177.0.0.1", "0x7f.0.0.1", "0x"),
    *("2130706433", "017700000001", "0x7f000001", "127.0.0.256", "127.300.0.1", "1.2.3", "1.2.3.4.5", "0", "09"),
    *("foo.1", "foo.0x4.", "0x.com", "1.0x", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::1%25lo]"),
    *("[fe80::1]", "[1::2::3]", "[::1", "::1", "[::127.0.0.1]", "[v1.a]", "169.254.169.254", "0xa9fea9fe"),
    *("xn--nxasmq6b.example", "xn--a.example", "bücher.example", "EXAMPLE。com", "shop．example.com", "ﬀ.example"),
    *("faß.de", "１２７.0.0.1", "127。0。0。1", "a\u00ad.com", "a\u200d.com", "K.com", "%31%32%37.0.0.1", "a%2eb.com"),
    *("a%2fb.com", "a\tb.com", "a\nb.com", "a|b.com", "a^b.com", "a'b.com", "a_b.com", "-a.com", "\ufeffa.com"),
)
PORTS = ("",) * 6 + (":443", ":80", ":8080", ":", ":0", ":080", ":65536", ":+80", ":-1", ":８０", ":80a", ": 80")
PATHS = (
    *(
        "",
        "/",
        "/callback",
        "//evil.example/",
        "/\\evil.example",
        "\\@evil.example",
        "?@evil.example",
        "#@evil.example",
    ),
    *("/@evil.example", "/a?x=@evil.example", "/%2e%2e/x", "/a\tb", "/é", "/a b"),
)
INSERTED = "\\/@:?#[]%.\t\n\r\x00 \u3002*&,;'\"<>^|`{}~$"
READ_IN_NODE = """
const urls = JSON.parse(require('fs').readFileSync(0))
const read = (text) => {
  try {
    const { protocol, username, password, hostname, origin } = new URL(text)
    return { protocol, user: username + password, hostname, origin }
  } catch {
    return null
  }
}
console.log(JSON.stringify(urls.map(read)))
"""


def urls(number: int) -> Iterator[str]:
    draw = random.Random(7)
    for _ in range(number):
        url = "".join(map(draw.choice, (SCHEMES, AFTER_SCHEME, USERS, HOSTS, PORTS, PATHS)))
        if draw.random() < 0.15:
            at = draw.randrange(len(url) + 1)
            url = url[:at] + draw.choice(INSERTED) + url[at:]
        yield url


def accepts(check: Callable[[str], object], url: str) -> bool:
    try:
        return check(url) is not False
    except ValueError:
        return False


def plain(host: str) -> str:
    """Return a host in the form of browsers, except that its case and the spelling of an IPv6 address don't matter."""
    host = host.strip("[]").lower()
    return str(IPv6Address(host)) if ":" in host else host


def host_for_httpx(url: str) -> str | None:
    try:
        return plain(httpx.URL(url).raw_host.decode())
    except (httpx.InvalidURL, ValueError):
        return None


def test_the_host_that_wxauth_judges_is_the_host_that_is_opened() -> None:
    texts = list(dict.fromkeys(urls(20_000)))
    command = [needs("node"), "-e", READ_IN_NODE]
    read = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True).stdout
    of_settings = [TypeAdapter(kind).validate_python for kind in (Url, SecureUrl, IssuerUrl, HookUrl)]
    checks = [check_uri, _scheme_and_name, is_url_without_user, lambda url: plain_url(url) is not None, *of_settings]
    accepted = [0] * len(checks)
    wrong: list[tuple[object, ...]] = []
    for url, seen in zip(texts, json.loads(read), strict=True):
        for number, check in enumerate(checks):
            if not accepts(check, url) or scheme_of_app(url):
                continue
            accepted[number] += 1
            judged, connected = plain(urlsplit(url).hostname or ""), host_for_httpx(url)
            # Both programs refuse some names that wxauth accepts, for example with a malformed label `xn--a`. Nobody
            # is led anywhere then. httpx and browsers encode names of other languages.
            opened = judged if seen is None or not judged.isascii() else plain(seen["hostname"])
            if {judged, opened} != {judged} or (judged.isascii() and connected not in (judged, None)):
                wrong.append((url, judged, opened, connected))
            if seen is not None and (seen["user"] or connected not in (None, plain(seen["hostname"]))):
                wrong.append((url, seen, connected))
        if accepts(check_uri, url) and scheme_of_app(url) is None and seen is not None:
            is_on_loopback = plain(seen["hostname"]).startswith(("127.", "::1")) or seen["hostname"] == "localhost"
            if is_local(url) != is_on_loopback or (seen["protocol"] == "http:" and not is_on_loopback):
                wrong.append((url, "loopback"))
            if "[" not in url and origin_of(url) != seen["origin"]:
                wrong.append((url, origin_of(url), seen["origin"]))
        if accepts(is_http_url, url) and is_secure(url) and url.lower().startswith("http:"):
            connected = host_for_httpx(url)
            if connected is not None and not is_loopback(connected):
                wrong.append((url, "secure"))
    assert wrong == []
    assert min(accepted) > 50, accepted


@pytest.mark.parametrize("registered", ["http://127.0.0.1/cb", "http://[::1]:1/cb", "http://localhost/cb"])
def test_the_port_of_a_loopback_address_is_all_that_may_differ(registered: str) -> None:
    host = host_of(registered).removesuffix(":1")
    for other in HOSTS:
        uri = f"http://{other}:8080/cb"
        assert is_registered(uri, [registered], allows_localhost=True) == (other == host), uri
    for port in (":0", ":65536", ":+80", ":-1", ":８０", ":80a", ": 80", ":80@evil.example", ":80\\@evil.example"):
        assert not is_registered(f"http://{host}{port}/cb", [registered], allows_localhost=True), port
