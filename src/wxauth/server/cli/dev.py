"""`wxauth dev`."""

import os

import click

from wxauth.server.cli.printing import Failed, terminal_language


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the service; 8000, or WXAUTH_PORT.")
@click.option("--wechat-port", type=click.IntRange(1, 65535), default=8001, show_default=True)
@click.option("--site-port", type=click.IntRange(1, 65535), help="Port of the example sites; 8004, or a free one.")
@click.option("--allow-host", "allowed_hosts", multiple=True, help="Another name to answer to; repeatable.")
@click.option("--shop", "shop_url", metavar="URL", help="A back end of yours that sells, in place of the example's.")
def dev(
    port: int | None, wechat_port: int, site_port: int | None, allowed_hosts: tuple[str, ...], shop_url: str | None
) -> None:
    """Run the service for development, with nothing configured.

    Starts its own PostgreSQL (kept under .wxauth/), a simulated WeChat, and a website that logs people in by scan. If
    WXAUTH_APP_ID is set, the real WeChat is used; the app secret is WXAUTH_APP_SECRET, or you are asked for it. If
    WXAUTH_DATABASE_URL is set, that database is used.

    It answers only to names of this machine: localhost, those of WXAUTH_HOST and WXAUTH_ISSUER, and --allow-host.
    """
    if os.name != "posix":  # only on these can the bundled PostgreSQL end together with its owner: see dev/postgres.py
        raise Failed("wxauth dev needs Linux or macOS; on Windows run it in WSL. 在 Windows 上请使用 WSL。")
    from wxauth.server.dev.middleware import name_in
    from wxauth.server.dev.run import DevFailed, run  # cannot be imported on Windows, nor without the extra dev

    names = [name_in(host) for host in allowed_hosts]
    if None in names:
        raise click.UsageError("--allow-host must be a name or an address, such as laptop.example.com")
    try:
        run(
            port=port,
            wechat_port=wechat_port,
            site_port=site_port,
            shop_url=shop_url,
            allowed_hosts=[name for name in names if name is not None],
            language=terminal_language(),
        )
    except DevFailed as exc:
        raise Failed(str(exc)) from None
