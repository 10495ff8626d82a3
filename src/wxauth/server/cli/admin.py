"""`wxauth admin`: the console."""

from typing import TYPE_CHECKING

import click

from wxauth.server.cli.asking import Failed, json_option, read_settings, with_database

if TYPE_CHECKING:
    from uuid import UUID


@click.group()
def admin() -> None:
    """The console, where administrators work in a browser."""


@admin.command("link")
@click.argument("user_id", type=click.UUID, required=False)
@json_option
def make_link(user_id: "UUID | None", as_json: bool) -> None:
    """Print a URL that opens the console once, within ten minutes, for an administrator.

    Use it before anybody can scan, or while WeChat is away. Without USER_ID, the URL is for the only administrator.
    Whoever opens the URL is logged in as that administrator: send it to nobody else.
    """
    import json

    from wxauth.server.console.sessions import PATH, NoAdministrator, SeveralAdministrators, make_link
    from wxauth.server.core.settings import ConsoleSettings

    settings = read_settings(ConsoleSettings)
    try:
        link = with_database(lambda database, now: make_link(database, user_id, now=now))
    except NoAdministrator:
        who = f"{user_id} is no administrator" if user_id else "there is no administrator yet"
        to_do = "see 'wxauth users list', then 'wxauth users grant USER_ID admin'. 请先授予 admin 角色。"
        raise Failed(f"{who}: {to_do}") from None
    except SeveralAdministrators:
        to_do = "name one, see 'wxauth users list --role admin'. 请指明其中一位。"
        raise Failed(f"there are several administrators: {to_do}") from None
    url = f"{settings.issuer}{PATH}#link={link.secret}"
    if as_json:
        expires_at = link.expires_at.isoformat(timespec="seconds")
        click.echo(json.dumps({"url": url, "user_id": str(link.user_id), "expires_at": expires_at}))
        return
    click.echo(url)
    click.echo("Good once, for ten minutes. 仅可使用一次，十分钟内有效。", err=True)
    if not settings.admin_page:
        click.echo("The console is there where the service has WXAUTH_ADMIN_PAGE=true. 服务须开启此项。", err=True)
