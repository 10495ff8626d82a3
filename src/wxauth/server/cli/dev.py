"""`wxauth dev`."""

import os

import click

from wxauth.server.cli.printing import Failed, terminal_language


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the service; 8000, or WXAUTH_PORT.")
@click.option("--wechat-port", type=click.IntRange(1, 65535), default=8001, show_default=True)
@click.option("--site-port", type=click.IntRange(1, 65535), help="Port of the example site; 8004, or a free one.")
def dev(port: int | None, wechat_port: int, site_port: int | None) -> None:
    """Run the service for development, with nothing configured.

    Starts its own PostgreSQL (kept under .wxauth/), a simulated WeChat, and a website that logs people in by scan. If
    WXAUTH_APP_ID is set, the real WeChat is used; the app secret is WXAUTH_APP_SECRET, or you are asked for it. If
    WXAUTH_DATABASE_URL is set, that database is used.
    """
    if os.name != "posix":  # only on these can the bundled PostgreSQL end together with its owner: see dev/postgres.py
        raise Failed("wxauth dev needs Linux or macOS; on Windows run it in WSL. 在 Windows 上请使用 WSL。")
    from wxauth.server.dev.run import DevFailed, run  # cannot be imported on Windows, nor without the extra dev

    try:
        run(port=port, wechat_port=wechat_port, site_port=site_port, language=terminal_language())
    except DevFailed as exc:
        raise Failed(str(exc)) from None
