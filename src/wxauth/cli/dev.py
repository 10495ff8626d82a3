"""`wxauth dev`."""

import os

import click

from wxauth.cli.asking import Failed, terminal_language


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Where the service listens; 8000, or WXAUTH_PORT.")
@click.option("--wechat-port", type=click.IntRange(1, 65535), default=8001, show_default=True)
def dev(port: int | None, wechat_port: int) -> None:
    """Run the service on this machine, with nothing installed or configured.

    Brings its own PostgreSQL (kept under .wxauth/) and a simulated WeChat. Where WXAUTH_APP_ID and
    WXAUTH_APP_SECRET are set, the real WeChat is asked instead; where WXAUTH_DATABASE_URL is, that database.
    """
    if os.name != "posix":  # the bundled PostgreSQL is tied to its owner by what only these have: see dev/postgres.py
        raise Failed("wxauth dev needs Linux or macOS; on Windows run it in WSL. 在 Windows 上请使用 WSL。")
    from wxauth.dev.run import DevFailed, run

    try:
        run(port=port, wechat_port=wechat_port, language=terminal_language())
    except DevFailed as exc:
        raise Failed(str(exc)) from None
