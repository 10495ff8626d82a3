"""`wxauth secret`: manage the key that encrypts stored values."""

import base64
import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from wxauth.server.cli.options import confirm, yes_option
from wxauth.server.cli.printing import Failed, json_option, show
from wxauth.server.cli.resources import read_settings, with_database
from wxauth.server.core.sealing import Sealer
from wxauth.server.core.settings import Settings

if TYPE_CHECKING:
    from wxauth.server.checks.sealed import SealedCounts


@click.group()
def secret() -> None:
    """Manage the secret key that encrypts stored values."""


@secret.command()
def new_command() -> None:
    """Print a new value for WXAUTH_SECRET_KEY."""
    click.echo(base64.b64encode(secrets.token_bytes(32)).decode())


@secret.command()
@json_option
def reseal_command(as_json: bool) -> None:
    """Encrypt all stored secrets again with WXAUTH_SECRET_KEY.

    The former key must be in WXAUTH_SECRET_KEY_PREVIOUS. Run it when every replica has the new key. It may run beside
    the service, and may be stopped and run again.
    """
    from wxauth.server.service.resealing import reseal

    sealer = Sealer(read_settings(Settings).secret_keys)
    done = with_database(lambda database, now: reseal(database, sealer, now=now))
    show(asdict(done), f"encrypted again: {_counts(done)}", as_json=as_json)
    if done.not_opened:
        raise Failed(
            f"WXAUTH_SECRET_KEY_PREVIOUS: {done.not_opened} stored values were encrypted with a key that is not in it. "
            f"其中缺少加密了 {done.not_opened} 项已存内容的旧密钥。"
        )


@secret.command()
@yes_option
@json_option
def forget_command(yes: bool, as_json: bool) -> None:
    """Erase what no configured secret key decrypts, because the key is lost. Back up the database first.

    Everybody must log in again, which phones do by themselves; no user, identity or phone number is lost. Look for the
    key first: a service that still runs has it in its environment.
    """
    from wxauth.server.service.resealing import forget

    sealer = Sealer(read_settings(Settings).secret_keys)
    confirm(
        lambda: "Erase for good what this WXAUTH_SECRET_KEY does not decrypt? 确定彻底删除当前密钥无法解密的内容？",
        yes=yes,
    )
    done = with_database(lambda database, now: forget(database, sealer, now=now))
    lines = [f"given up: {_counts(done)}"]
    if done.webhook_secrets:
        lines.append("webhooks are disabled: wxauth webhooks secret NAME, then wxauth webhooks set NAME --enable")
    if done.apps:
        lines.append("add these apps again: wxauth apps add APP_ID")
    show(asdict(done), "\n".join(lines), as_json=as_json)


def _counts(done: "SealedCounts") -> str:
    return (
        f"{done.signing_keys} signing keys, {done.session_keys} session keys, "
        f"{done.phone_answers} phone answers, {done.webhook_secrets} webhook secrets, {done.apps} apps, "
        f"{done.url_links} URL Links"
    )
