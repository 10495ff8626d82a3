"""The text that `wxauth dev` prints when it is ready."""

import shlex
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from wxauth.problems import Language
from wxauth.server.checks import Level, Result
from wxauth.server.core.settings import Settings

_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - asked for
_SOMEWHERE_ELSE: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849), which nobody has."""

_SIMULATED: Final = """
wxauth is ready, with a simulated WeChat.  已就绪，使用模拟微信。

  API docs / 接口文档    {url}/docs
  Phone / 网页版模拟手机  {wechat_url}/desk/
                        Log in and see each request, break things. 像手机一样登录，查看每个请求，还能模拟故障。
  WeChat / 模拟微信      {wechat_url}
                        Any plain name is a code, the same person each time. 任意名字即 code，同名即同一用户。

Log in as alice / 以 alice 登录：

  curl -s {url}/v1/login -H 'Content-Type: application/json' -d '{{"code":"alice"}}'

Use the token / 使用令牌：

  TOKEN=$(curl -s {url}/v1/login -H 'Content-Type: application/json' -d '{{"code":"alice"}}' \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
  curl -s {url}/v1/me -H "Authorization: Bearer $TOKEN"
"""
_REAL: Final = """
wxauth is ready, with the real WeChat.  已就绪，连接真实微信。

  API docs / 接口文档    {url}/docs
  WeChat / 微信          {wechat_url}

What WeChat says of your app / 微信对该小程序的检查结果：

{findings}

In the mini-program / 在小程序中：

  createAuth({{ baseURL: '{url}' }})
  Developer tools, details, local settings: "do not check domains". 开发者工具 → 详情 → 本地设置 → 不校验合法域名。
"""
_IN_THIS_NETWORK: Final = """
On a phone in this network / 同一网络中的手机：

  createAuth({{ baseURL: '{url}' }})
"""
_SITE: Final = """
Log in to a website by scan / 扫码登录网站：

  Website / 示例网站     {site_url}
                        Log in there, and scan its code. 在此登录，然后扫码。
"""
_CONSOLE: Final = """
Administer in a browser / 在浏览器中管理：

  Console / 管理后台     {url}/admin/
                        {how_to_scan}
"""
_ADMINISTRATOR: Final = """
Become an administrator / 成为管理员：

{finding}  {command} users grant {user_id} admin

Open the console without a phone / 不用手机打开管理后台：

  {command} admin link

Every other command, in another terminal / 在另一个终端运行其他命令：

  {command} --help
"""
_FIND_ALICE: Final = """\
  USER_ID=$(curl -s {url}/v1/login -H 'Content-Type: application/json' -d '{{"code":"alice"}}' \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["user"]["id"])')
"""
_SCAN_ON_DESK: Final = (
    "Log in there, and scan its code on the desk, as alice. 在此登录，用网页版模拟手机以 alice 的身份扫码。"
)
_SCAN: Final = "Log in there, and scan its code as an administrator. 在此登录，用管理员的手机扫码。"
_OWN_APP: Final = """
Your own mini-program, with the real WeChat / 连接真实微信，登录自己的小程序：

  WXAUTH_APP_ID=wx… {program} dev
"""
_END: Final = """
Ctrl-C ends it all; the data stays in {home}/. 按 Ctrl-C 停止，数据保留在 {home}/。
"""
_MARKS: Final = {Level.OK: "ok", Level.NOTE: "note", Level.BAD: "BAD"}


def service_url(settings: Settings) -> str:
    """The service's URL for this machine."""
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104 - asked for
    return _url("::1" if host == "::" else host, settings.port)


def welcome(
    settings: Settings,
    *,
    simulated_url: str | None,
    site_url: str,
    findings: Iterable[Result],
    home: Path,
    language: Language = "en",
) -> str:
    """The whole text.

    Args:
        settings: The settings of the service.
        simulated_url: The URL of the simulated WeChat; None for the real WeChat.
        site_url: The URL of the example site.
        findings: The results of asking the real WeChat.
        home: Where the data is kept.
        language: The language of the findings. All other text is in both.
    """
    address = _address_in_network(settings.host)
    parts = [
        _REAL if simulated_url is None else _SIMULATED,
        _IN_THIS_NETWORK if address else "",
        _CONSOLE,
        _ADMINISTRATOR,
        _SITE,
        "" if simulated_url is None else _OWN_APP,
        _END,
    ]
    return "".join(
        part.format(
            url=_url(address, settings.port) if part is _IN_THIS_NETWORK else service_url(settings),
            wechat_url=simulated_url or settings.wechat_base_url,
            site_url=site_url,
            findings="\n".join(f"  {_MARKS[it.level]:4}  {it.name}: {it.said(language)}" for it in findings),
            program=sys.argv[0],
            how_to_scan=_SCAN if simulated_url is None else _SCAN_ON_DESK,
            finding="" if simulated_url is None else _FIND_ALICE.format(url=service_url(settings)),
            user_id="USER_ID" if simulated_url is None else "$USER_ID",
            command=shlex.quote(str((home / "wxauth").absolute())),
            home=home,
        )
        for part in parts
    )


def _address_in_network(host: str) -> str:
    """This machine's address for others in the network; empty if the service listens on one address, or offline."""
    if host not in _EVERYWHERE:
        return ""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as way_out:
        try:
            way_out.connect((_SOMEWHERE_ELSE[family], 9))  # sends nothing: the system only chooses the route
        except OSError:
            return ""
        address: str = way_out.getsockname()[0]
        return address


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
