"""`wxauth secret`: the key that seals what is stored."""

import sys

import click

from wxauth.server.cli.asking import Failed, json_option, read_settings, with_database


@click.group()
def secret() -> None:
    """The key that seals what is stored."""


@secret.command()
def new() -> None:
    """Print a new value for WXAUTH_SECRET_KEY."""
    import base64
    import secrets

    click.echo(base64.b64encode(secrets.token_bytes(32)).decode())


@secret.command()
@json_option
def reseal(as_json: bool) -> None:
    """Seal all secrets anew with WXAUTH_SECRET_KEY, once the former key is in WXAUTH_SECRET_KEY_PREVIOUS.

    Safe beside running services, and to be stopped and begun again. Run it when every replica has the new key.
    """
    import dataclasses
    import json

    from wxauth.server.core.sealing import Sealer
    from wxauth.server.core.settings import Settings
    from wxauth.server.service.resealing import reseal

    sealer = Sealer(read_settings(Settings).secret_keys)
    done = with_database(lambda database, now: reseal(database, sealer, now=now))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done)))
    else:
        click.echo(
            f"sealed anew: {done.signing_keys} signing keys, {done.session_keys} session keys, "
            f"{done.phone_answers} phone answers, {done.webhook_secrets} webhook secrets, {done.apps} apps"
        )
    if done.not_opened:
        raise Failed(
            f"WXAUTH_SECRET_KEY_PREVIOUS: {done.not_opened} stored values were sealed with a key that is not in it. "
            f"其中缺少加密了 {done.not_opened} 项已存内容的旧密钥。"
        )


@secret.command()
@click.option("--yes", is_flag=True, help="Go on without asking.")
@json_option
def forget(yes: bool, as_json: bool) -> None:
    """Erase what no secret key at hand opens, because the key that sealed it is lost. Back up the database first.

    Everybody logs in again, which phones do by themselves; no user, identity or phone number is lost. Look for the key
    first: a service that still runs has it in its environment.
    """
    import dataclasses
    import json

    from wxauth.server.core.sealing import Sealer
    from wxauth.server.core.settings import Settings
    from wxauth.server.service.forgetting import forget

    sealer = Sealer(read_settings(Settings).secret_keys)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("without a terminal it wants --yes. 非终端环境须加 --yes。")
        click.confirm(
            "Erase for good what this WXAUTH_SECRET_KEY does not open? 确定彻底删除当前密钥无法解密的内容？",
            abort=True,
            err=True,
        )
    done = with_database(lambda database, now: forget(database, sealer, now=now))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done)))
    else:
        click.echo(
            f"given up: {done.signing_keys} signing keys, {done.session_keys} session keys, "
            f"{done.phone_answers} phone answers, {done.webhook_secrets} webhook secrets, {done.apps} apps"
        )
        if done.webhook_secrets:
            click.echo("webhooks are disabled: wxauth webhooks secret NAME, then wxauth webhooks set NAME --enable")
        if done.apps:
            click.echo("add these apps again: wxauth apps add APP_ID")
