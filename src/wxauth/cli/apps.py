"""`wxauth apps`: the mini-programs."""

import click

from wxauth.cli.asking import Failed, with_services


@click.group()
def apps() -> None:
    """The mini-programs."""


@apps.command("force-token")
@click.argument("app_id")
def force_token(app_id: str) -> None:
    """Have WeChat replace an app's access token, which then is dead for everybody who has it.

    For a token that WeChat refuses (40001, 40014, 42001) and yet hands out again. Running services look for the new
    one when WeChat refuses theirs, or within a minute. WeChat allows it twenty times a day, 30 s apart.
    """
    from wxauth.errors import UnknownApp, WeChatError
    from wxauth.siblings.wechat_tokens import force_wechat_token

    try:
        with_services(lambda services: force_wechat_token(services, app_id))
    except UnknownApp:
        raise Failed(f"{app_id} is not one of the configured apps. 未配置 {app_id}。") from None
    except WeChatError as exc:
        raise Failed(f"WeChat: {exc.detail} ({exc.code})") from None
    click.echo(f"{app_id} has a new token")
