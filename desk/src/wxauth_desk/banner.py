"""The text that `wxauth-desk dev` prints when it is ready.

The text consists of the blocks of `banner.en.txt` or `banner.zh.txt` that fit the settings.
"""

import re
import shlex
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.request import getproxies_environment, proxy_bypass

from wxauth.checks.result import MARKS, CheckResult
from wxauth.console.links import CONSOLE_PATH
from wxauth.settings.settings import Settings
from wxauth_desk.middleware import ALL_INTERFACES
from wxauth_desk.wechat import APP_KEYS, DESK_PATH

_PROGRAM: Final = sys.argv[0]  # read at the start, because `runpy` replaces it while another thread runs an example
# These addresses are for documentation (RFC 5737, RFC 3849), so they belong to no machine.
_ADDRESSES_ELSEWHERE: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def service_url(settings: Settings) -> str:
    """Return the URL at which programs on this machine reach the service."""
    return _url("127.0.0.1" if settings.host in ALL_INTERFACES else settings.host, settings.port)


def welcome(
    settings: Settings,
    *,
    simulated_url: str | None,
    site_url: str,
    mcp_url: str | None,
    findings: Iterable[CheckResult],
    home: Path,
    language: str,
) -> str:
    """Return the text. Without `simulated_url`, the service uses the real WeChat."""
    address = _address_in_network(settings.host)
    is_simulated = simulated_url is not None
    # The block `beside` lists the addresses of the websites and the console, which `simulated` contains itself.
    left_out = {"real", "beside"} if is_simulated else {"simulated", "log_in", "alice", "own_app"}
    if mcp_url is None:
        left_out.add("mcp")
    if not address:
        left_out.add("network")
    if not _is_behind_a_proxy():
        left_out.add("proxied")
    template = "".join(block for name, block in _blocks(language).items() if name not in left_out)
    # Some values below make no sense if their block is left out, for example `desk_url` with the real WeChat.
    return template.format(
        url=service_url(settings),
        # With a tunnel to this machine, the issuer is the tunnel's URL, which a phone can open.
        phone_url=settings.issuer if settings.issuer.startswith("https:") else service_url(settings),
        network_url=_url(address, settings.port),
        wechat_url=simulated_url or settings.wechat_base_url,
        desk_url=f"{simulated_url}{DESK_PATH}",
        console_url=f"{service_url(settings)}{CONSOLE_PATH}",
        site_url=site_url,
        mcp_url=mcp_url,
        findings="\n".join(
            f"  {MARKS[finding.level]:4}  {finding.name}: {finding.text.translated(language)}" for finding in findings
        ),
        program="scripts/dev" if Path("scripts/dev").exists() else f"{_PROGRAM} dev",
        # With the simulated WeChat, a command in the text sets `USER_ID`. With the real one, the reader inserts an id.
        user_id="$USER_ID" if is_simulated else "USER_ID",
        command=shlex.quote(str((home / "wxauth").absolute())),
        home=home,
        app_key=APP_KEYS[0],
        sandbox_key=APP_KEYS[1],
    )


def _blocks(language: str) -> Mapping[str, str]:
    file_name = "banner.zh.txt" if language.startswith("zh") else "banner.en.txt"
    text = Path(__file__).with_name(file_name).read_text("utf-8")
    return dict(re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL))


def _is_behind_a_proxy() -> bool:
    """Return whether programs such as curl might use a proxy for requests to this machine."""
    proxies = getproxies_environment()
    return bool(proxies.get("http") or proxies.get("all")) and not proxy_bypass("127.0.0.1")


def _address_in_network(host: str) -> str:
    if host not in ALL_INTERFACES:
        return ""  # the service listens on only one address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends no packet, so the port does not matter. The system only chooses the
            # route, and with it this machine's address.
            probe.connect((_ADDRESSES_ELSEWHERE[family], 9))
        except OSError:
            return ""  # this machine is offline
        address: str = probe.getsockname()[0]
        return address


def _url(host: str, port: int) -> str:
    host_in_url = f"[{host}]" if ":" in host else host  # an IPv6 address is in brackets
    return f"http://{host_in_url}:{port}"
