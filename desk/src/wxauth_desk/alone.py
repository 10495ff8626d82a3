"""The command `wxauth-desk wechat`, which runs the simulated WeChat alone, for programs that do not use wxauth."""

import socket
from contextlib import suppress
from typing import Final

import click
import uvicorn

from wxauth_desk.i18n import lazy_gettext as _
from wxauth_desk.middleware import REFUSED_BY_WECHAT, OwnNamesOnly
from wxauth_desk.serving import SERVER_OPTIONS
from wxauth_desk.terminal import TextError, localized, os_reason
from wxauth_desk.wechat import APPS, Surroundings, create_simulator

# If a program always calls these names, its operator can map them to this machine in a hosts file.
_WECHAT_HOST_NAMES: Final = ("api.weixin.qq.com", "api2.weixin.qq.com", "open.weixin.qq.com")
_BACKLOG: Final = 2048  # uvicorn's default, as for the service


def run(port: int) -> None:
    """Run the simulated WeChat on this port until Ctrl-C or SIGTERM. Raises: TextError, if the port can't be opened."""
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
    except OSError as exc:
        problem = _(
            "can't listen on {address}: {reason} (choose another port with {option})",
            address=f"127.0.0.1:{port}",
            reason=os_reason(exc),
            option="--port",
        )
        raise TextError(problem) from None
    with listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        welcome = _(
            "The simulated WeChat is running at {url}. It responds as https://api.weixin.qq.com does.\n\n  "
            "AppID         {app_id}\n  AppSecret     {app_secret}\n  wx.login code any plain name, such as "
            "alice\n  Phone code    phone-13800138000\n  Manual        {url}/about\n  Requests      "
            "{url}/desk/\n\nPress Ctrl-C to stop it.",
            url=url,
            app_id=APPS[0]["app_id"],
            app_secret=APPS[0]["app_secret"],
        )
        click.echo(localized(welcome))
        simulator = create_simulator(around=Surroundings(is_alone=True))
        app = OwnNamesOnly(simulator, _WECHAT_HOST_NAMES, own_pages_only=True, refusal=REFUSED_BY_WECHAT)
        with suppress(KeyboardInterrupt):  # after uvicorn has stopped, it raises the signal again
            uvicorn.Server(uvicorn.Config(app, **SERVER_OPTIONS)).run([listener])
