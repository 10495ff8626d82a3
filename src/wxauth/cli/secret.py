"""`wxauth secret`: the key that seals what is stored."""

import click

from wxauth.cli.asking import Failed, json_option, read_settings, with_database


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
    """Seal all that is stored with WXAUTH_SECRET_KEY, after the former one moved to WXAUTH_SECRET_KEY_PREVIOUS.

    Safe beside running services, and to be stopped and begun again. Run it when every replica has the new key.
    """
    import dataclasses
    import json

    from wxauth.core.sealing import Sealer
    from wxauth.core.settings import Settings
    from wxauth.service.resealing import reseal

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
