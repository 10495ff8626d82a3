"""The commands `wxauth keys` (keys that sign tokens) and `wxauth secret` (the key that encrypts stored values)."""

import base64
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import click

from wxauth.cli.printing import Failed, confirm, json_option, show, show_items, to_the_second, yes_option
from wxauth.cli.resources import T, read_settings, with_database, with_parts
from wxauth.core.database import Database
from wxauth.core.sealing import Sealer
from wxauth.core.trail import OPERATOR
from wxauth.errors import NotFound
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.keys.keyring import KeyRing
from wxauth.keys.models import StoredSigningKey
from wxauth.keys.queries import KeyAnswer, list_published
from wxauth.settings.secrets import SECRET_KEY_BYTES
from wxauth.settings.settings import Settings
from wxauth.web.pages import all_of

# `wxauth.service` takes a long time to load, so only the commands that need it import it.
if TYPE_CHECKING:
    from wxauth.service.resealing import SealedCounts


@click.group()
def keys() -> None:
    """Manage the keys that sign access tokens and id_tokens."""


@keys.command()
@json_option
def list_command() -> None:
    """List all published keys: the previous keys, the current key and the next key.

    ES256 keys sign access tokens, and RS256 keys sign id_tokens.
    """

    async def read_keys(database: Database, now: datetime) -> list[KeyAnswer]:
        of_access_tokens, of_id_tokens = await list_published(database, now=now)
        return of_access_tokens + of_id_tokens

    published = with_database(read_keys)
    show_items(
        published,
        "kid alg state signs_from published_until",
        as_json=all_of(map(_json_of, published)),
        signs_from=lambda key: to_the_second(key["signs_from"]),
        published_until=lambda key: to_the_second(key["published_until"]),
    )


@keys.command()
@click.option(
    "--at-once",
    is_flag=True,
    help="Sign with the next key in six minutes. Gateways that store keys for longer reject its tokens for a while.",
)
@json_option
def rotate_command(at_once: bool) -> None:
    """Publish a new key, which begins to sign tokens after every cache has had time to fetch it.

    This takes WXAUTH_SIGNING_KEY_LEAD, a day by default. If a published key hasn't begun to sign tokens yet, no new key
    is created. If you have sites, the keys that sign id_tokens are rotated too.
    """
    key = _with_key_ring(lambda key_ring: key_ring.rotate(at_once=at_once, by=OPERATOR))
    row = {"kid": key.kid, "signs_from": key.activates_at.isoformat(timespec="seconds")}
    show(row, _("{kid} signs from {time}", kid=key.kid, time=to_the_second(key.activates_at)))


# The id of a key may begin with "-", or even with "-h". click must not read such an id as an option.
@keys.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("kid")
@json_option
def withdraw_command(kid: str) -> None:
    """Withdraw a stolen key at once. All tokens that the key signed are rejected.

    wxauth rejects these tokens within seconds, and guards reject them within five minutes. Sessions remain valid,
    because the next refresh returns a token that another key signed. If KID signs now, the waiting key replaces it at
    once. If no key is waiting, a new key does.
    """

    async def withdraw(key_ring: KeyRing) -> StoredSigningKey:
        try:
            return await key_ring.withdraw(kid, by=OPERATOR)
        except NotFound:
            raise Failed(_("there is no published key with this ID. Run 'wxauth keys list'")) from None

    signing_key = _with_key_ring(withdraw)
    text = _("withdrew {kid}. {other} signs now", kid=kid, other=signing_key.kid)
    show({"kid": kid, "signing": signing_key.kid}, text)


def _json_of(key: KeyAnswer) -> dict[str, object]:
    signs_from, published_until = key["signs_from"], key["published_until"]
    return {
        **key,
        "signs_from": signs_from.isoformat(timespec="seconds"),
        "published_until": None if published_until is None else published_until.isoformat(timespec="seconds"),
    }


def _with_key_ring(use: Callable[[KeyRing], Awaitable[T]]) -> T:
    return with_parts(lambda parts: use(parts[KeyRing]), seals=True)


@click.group()
def secret() -> None:
    """Manage the secret key that encrypts stored values."""


@secret.command()
def new_command() -> None:
    """Print a new value for WXAUTH_SECRET_KEY."""
    click.echo(base64.b64encode(secrets.token_bytes(SECRET_KEY_BYTES)).decode())


@secret.command()
@json_option
def reseal_command() -> None:
    """Encrypt all stored secrets again with WXAUTH_SECRET_KEY.

    WXAUTH_SECRET_KEY_PREVIOUS must contain the previous key. Run this command when every replica has the new key. The
    service can keep running. You can interrupt the command and run it again.
    """
    from wxauth.service.resealing import reseal

    sealer = Sealer(read_settings(Settings).secret_keys)
    resealed = with_database(lambda database, now: reseal(database, sealer, now=now))
    show(asdict(resealed), _("encrypted again: {counts}", counts=_text_of(resealed)))
    if resealed.not_opened:
        text = _(
            "WXAUTH_SECRET_KEY_PREVIOUS: must contain the key that encrypted {n} of the stored values",
            n=resealed.not_opened,
        )
        raise Failed(text)


@secret.command()
@yes_option
@json_option
def forget_command() -> None:
    """Erase all values that can't be decrypted because their secret key is lost.

    Back up the database first. All users must log in again, and their phones do this automatically. No user, identity
    or phone number is lost. Look for the key before you run this command. A service that is still running has the key
    in its environment.
    """
    from wxauth.service.resealing import forget

    sealer = Sealer(read_settings(Settings).secret_keys)
    confirm(lambda: _("Permanently erase all values that this WXAUTH_SECRET_KEY can't decrypt?"))
    erased = with_database(lambda database, now: forget(database, sealer, now=now))
    lines = [_("erased: {counts}", counts=_text_of(erased))]
    if erased.webhook_secrets:
        lines.append(
            _(
                "webhooks are disabled. For each webhook, run wxauth webhooks secret NAME and then wxauth "
                "webhooks set NAME --enable"
            )
        )
    if erased.apps:
        lines.append(_("add these apps again: wxauth apps add APP_ID"))
    show(asdict(erased), Text("\n").join(lines))


def _text_of(counts: "SealedCounts") -> Text:
    return _(
        "{signing_keys} signing keys, {session_keys} session keys, {phone_answers} phone number "
        "responses, {webhook_secrets} webhook secrets, {apps} apps",
        **asdict(counts),
    )
