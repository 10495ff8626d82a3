"""`wxauth-desk wechat`: the simulated WeChat alone, for programs that are developed against WeChat without wxauth."""

from contextlib import suppress

import click
import uvicorn

from wxauth_desk.i18n import lazy_gettext as _
from wxauth_desk.middleware import OwnNamesOnly
from wxauth_desk.terminal import TextError, listen, localized, os_reason
from wxauth_desk.wechat import create_simulator


def run(port: int) -> None:
    """Run until Ctrl-C or SIGTERM. Raises: TextError."""
    try:
        listener = listen("127.0.0.1", port)
    except OSError as exc:
        where = {"address": f"127.0.0.1:{port}", "option": "--port"}
        text = _(
            "cannot listen on {address}: {reason} (choose another port with {option})", reason=os_reason(exc), **where
        )
        raise TextError(text) from None
    with listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        click.echo(
            localized(_("The simulated WeChat answers at {url}; its manual: {url}/about. Ctrl-C ends it.", url=url))
        )
        app = OwnNamesOnly(create_simulator(), (), own_pages=True)
        with suppress(KeyboardInterrupt):
            # By h11, for the same reason as in `wxauth-desk dev`.
            uvicorn.Server(uvicorn.Config(app, http="h11", log_config=None, access_log=False)).run([listener])
