"""The text that `wxauth dev` prints when it is ready."""

import shlex
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from wxauth.errors import Title
from wxauth.problems import Language
from wxauth.server.checks.result import MARKS, CheckResult
from wxauth.server.core.settings import Settings
from wxauth.server.dev.wechat import APP_KEYS

_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - asked for
_SOMEWHERE_ELSE: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849), which belong to nobody."""

_SIMULATED: Final = Title(
    """
wxauth is ready, with a simulated WeChat.

  Phone       {desk_url:29} log in, see each request, break things
  Websites    {site_url:29} a shop and its admin: scan its code with that phone, once for both
  Console     {console_url:29} administer: log in there by scan, as alice, once she is an administrator
  API docs    {url}/docs
  WeChat      {wechat_url:29} simulated: any plain name is a code, the same person each time
  AppKey      {app_key}  of virtual payment; in the sandbox {sandbox_key}

Log in as alice:

{log_in}
Use the token:

{use}""",
    """
wxauth 已就绪，使用模拟微信。

  模拟手机    {desk_url:29} 登录，查看每个请求，模拟故障
  示例网站    {site_url:29} 商城及其后台，用模拟手机扫码，一次登录两处可用
  管理后台    {console_url:29} 以 alice 扫码登录；须先让她成为管理员
  接口文档    {url}/docs
  模拟微信    {wechat_url:29} 任意名字即 code，同名即同一用户
  AppKey      {app_key}  虚拟支付；沙箱为 {sandbox_key}

以 alice 登录：

{log_in}
使用令牌：

{use}""",
)
_REAL: Final = Title(
    """
wxauth is ready, with the real WeChat.

What WeChat says of your app:

{findings}

In the mini-program:

  createAuth({{ baseURL: '{url}' }})
  Developer tools, details, local settings: "do not check domains".
""",
    """
wxauth 已就绪，连接真实微信。

微信对该小程序的检查结果：

{findings}

在小程序中：

  createAuth({{ baseURL: '{url}' }})
  开发者工具 → 详情 → 本地设置 → 不校验合法域名。
""",
)
_IN_THIS_NETWORK: Final = Title(
    """
On a phone in this network:

  createAuth({{ baseURL: '{url}' }})
""",
    """
同一网络中的手机：

  createAuth({{ baseURL: '{url}' }})
""",
)
_BESIDE_REAL: Final = Title(
    """
Beside it:

  Websites    {site_url:29} a shop and its admin: scan its code, once for both
  Console     {console_url:29} administer: log in there, and scan its code as an administrator
  API docs    {url}/docs
  WeChat      {wechat_url}
""",
    """
其他地址：

  示例网站    {site_url:29} 商城及其后台，扫一次码，两处可用
  管理后台    {console_url:29} 在此登录，用管理员的手机扫码
  接口文档    {url}/docs
  微信        {wechat_url}
""",
)
_ADMINISTRATOR: Final = Title(
    """
Become an administrator:

{finding}  {command} users grant {user_id} admin

Open the console without a phone:

  {command} admin link

Every other command, in another terminal:

  {command} --help
""",
    """
成为管理员：

{finding}  {command} users grant {user_id} admin

不用手机打开管理后台：

  {command} admin link

在另一个终端运行其他命令：

  {command} --help
""",
)
_FIND_ALICE: Final = """\
  USER_ID=$(curl -s {url}/v1/login -H 'Content-Type: application/json' -d '{{"code":"alice"}}' \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["user"]["id"])')
"""
_LOG_IN: Final = """\
  curl -s {url}/v1/login -H 'Content-Type: application/json' -d '{{"code":"alice"}}'
"""
_USE: Final = """\
  TOKEN=$(curl -s {url}/v1/login -H 'Content-Type: application/json' -d '{{"code":"alice"}}' \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
  curl -s {url}/v1/me -H "Authorization: Bearer $TOKEN"
"""
_OWN_APP: Final = Title(
    """
Your own mini-program, with the real WeChat:

  WXAUTH_APP_ID=wx… {program}
""",
    """
连接真实微信，登录自己的小程序：

  WXAUTH_APP_ID=wx… {program}
""",
)
_END: Final = Title(
    """
Ctrl-C ends it all; the data stays in {home}/. 中文：LANG=zh_CN.UTF-8 {program}
""",
    """
按 Ctrl-C 停止，数据保留在 {home}/。 English: LANG=C.UTF-8 {program}
""",
)


def service_url(settings: Settings) -> str:
    """The service's URL for this machine."""
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104 - asked for
    return _url("::1" if host == "::" else host, settings.port)


def welcome(
    settings: Settings,
    *,
    simulated_url: str | None,
    site_url: str,
    findings: Iterable[CheckResult],
    home: Path,
    language: Language = "en",
) -> str:
    """The text of this module, for these settings.

    Args:
        settings: The settings of the service.
        simulated_url: The URL of the simulated WeChat; None for the real WeChat.
        site_url: The URL of the example sites.
        findings: The results of the checks at the real WeChat.
        home: Where the data is kept.
        language: The language of the text.
    """
    address = _address_in_network(settings.host)
    is_simulated = simulated_url is not None
    parts = [
        _SIMULATED if is_simulated else _REAL,
        *([_IN_THIS_NETWORK] if address else []),
        *([] if is_simulated else [_BESIDE_REAL]),
        _ADMINISTRATOR,
        *([_OWN_APP] if is_simulated else []),
        _END,
    ]
    return "".join(
        getattr(part, language).format(
            url=_url(address, settings.port) if part is _IN_THIS_NETWORK else service_url(settings),
            wechat_url=simulated_url or settings.wechat_base_url,
            desk_url=f"{simulated_url}/desk/",
            console_url=f"{service_url(settings)}/admin/",
            site_url=site_url,
            findings="\n".join(f"  {MARKS[it.level]:4}  {it.name}: {it.text_in(language)}" for it in findings),
            program="scripts/dev" if Path("scripts/dev").exists() else f"{sys.argv[0]} dev",
            log_in=_LOG_IN.format(url=service_url(settings)),
            use=_USE.format(url=service_url(settings)),
            finding=_FIND_ALICE.format(url=service_url(settings)) if is_simulated else "",
            user_id="$USER_ID" if is_simulated else "USER_ID",
            command=shlex.quote(str((home / "wxauth").absolute())),
            home=home,
            app_key=APP_KEYS[0],
            sandbox_key=APP_KEYS[1],
        )
        for part in parts
    )


def _address_in_network(host: str) -> str:
    """This machine's address in its network; empty if the service listens on one address only, or if offline."""
    if host not in _EVERYWHERE:
        return ""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_SOMEWHERE_ELSE[family], 9))  # sends nothing, only makes the system choose the route
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
        return address


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
