"""`wxauth dev`."""

import os

import click

from wxauth.server.cli.asking import Failed, terminal_language


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Where the service listens; 8000, or WXAUTH_PORT.")
@click.option("--wechat-port", type=click.IntRange(1, 65535), default=8001, show_default=True)
@click.option("--site-port", type=click.IntRange(1, 65535), help="Where the example site listens; 8004, or a free one.")
def dev(port: int | None, wechat_port: int, site_port: int | None) -> None:
    """Run the service on this machine, with nothing installed or configured.

    Brings its own PostgreSQL (kept under .wxauth/), a simulated WeChat, and a website that logs people in by scan.
    If WXAUTH_APP_ID is set, the real WeChat is asked instead of the simulated one. The app secret is that of
    WXAUTH_APP_SECRET; without it, you are asked. If WXAUTH_DATABASE_URL is set, that database is used.
    """
    if os.name != "posix":  # only these can end the bundled PostgreSQL together with its owner: see dev/postgres.py
        raise Failed("wxauth dev needs Linux or macOS; on Windows run it in WSL. 在 Windows 上请使用 WSL。")
    from wxauth.server.dev.run import DevFailed, run

    try:
        run(port=port, wechat_port=wechat_port, site_port=site_port, language=terminal_language())
    except DevFailed as exc:
        raise Failed(str(exc)) from None
