"""The kinds of sealed values in the database, and the checks of whether the secret keys can open them.

A sealed value can be opened only with its context, which names the place where it is stored. Values that expire within
two hours, such as JS-SDK tickets, are not among these kinds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, NamedTuple, TypeVar

from wxauth.apps.queries import STORED_APPS, SealedApp
from wxauth.checks.queries import SAMPLE_SIZE, SOME_SESSION_KEYS
from wxauth.checks.result import CheckResult, bad, good, note
from wxauth.core import sealing
from wxauth.core.database import Database
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer
from wxauth.events.models import Webhook
from wxauth.events.webhook_queries import ALL_WEBHOOKS
from wxauth.i18n import lazy_gettext as _
from wxauth.keys.models import StoredSigningKey, signing_key_of
from wxauth.keys.queries import PUBLISHED
from wxauth.phones.queries import PENDING_ANSWERS, UnsettledAnswer
from wxauth.session_keys.queries import SealedSessionKey

Row = TypeVar("Row")


class SealedValue(NamedTuple):
    sealed: bytes
    context: bytes

    def can_be_opened(self, sealer: Sealer) -> bool:
        return sealer.opens(self.sealed, context=self.context)


@dataclass(frozen=True, slots=True)
class SealedKind(Generic[Row]):
    # Returns each sealed value (None if it is not set) with its context, in the order of the columns in the `Reseal`.
    values: Callable[[Row], Sequence[tuple[bytes | None, bytes]]]

    def stored_values(self, row: Row) -> list[SealedValue]:
        """Return the values of a row that are set."""
        return [SealedValue(sealed, context) for sealed, context in self.values(row) if sealed is not None]

    def opens(self, sealer: Sealer, row: Row) -> bool:
        """Return whether all values of the row can be opened."""
        return all(value.can_be_opened(sealer) for value in self.stored_values(row))

    def resealed(self, sealer: Sealer, row: Row) -> list[bytes | None] | None:
        """Return the values of a row, sealed with the current secret key; None if one of them cannot be opened."""
        try:
            return [
                None if sealed is None else sealer.seal(sealer.open(sealed, context=context), context=context)
                for sealed, context in self.values(row)
            ]
        except CannotOpen:
            return None


SEALED_SESSION_KEYS: Final[SealedKind[SealedSessionKey]] = SealedKind(
    lambda key: [(key.sealed, sealing.session_key_context(key.app_id, key.openid))]
)
SEALED_PHONE_ANSWERS: Final[SealedKind[UnsettledAnswer]] = SealedKind(
    lambda answer: [(answer.sealed, sealing.phone_answer_context(answer.code_hash))]
)
SEALED_WEBHOOKS: Final[SealedKind[Webhook]] = SealedKind(
    lambda webhook: [
        (secret, sealing.webhook_secret_context(webhook.id)) for secret in (webhook.secret, webhook.former_secret)
    ]
)
SEALED_APPS: Final[SealedKind[SealedApp]] = SealedKind(lambda app: [(app.secrets, sealing.app_context(app.app_id))])
SEALED_SIGNING_KEYS: Final[SealedKind[StoredSigningKey]] = SealedKind(
    lambda key: [(key.private_key, sealing.signing_key_context(key.kid))]
)


async def some_values(database: Database, *, now: datetime) -> list[SealedValue]:
    """Return the stored values of each kind except signing keys, which the callers read themselves.

    Of the session_keys and the phone responses, return only a sample.
    """
    kinds: Sequence[tuple[SealedKind[Any], Sequence[Any]]] = (
        (SEALED_SESSION_KEYS, await database.rows(SOME_SESSION_KEYS, size=SAMPLE_SIZE)),
        (SEALED_PHONE_ANSWERS, await database.rows(PENDING_ANSWERS, asked_before=now, size=SAMPLE_SIZE)),
        (SEALED_WEBHOOKS, await database.rows(ALL_WEBHOOKS)),
        (SEALED_APPS, await database.rows(STORED_APPS)),
    )
    return [value for kind, rows in kinds for row in rows for value in kind.stored_values(row)]


async def ensure_opens(database: Database, sealer: Sealer, *, now: datetime) -> None:
    """Check that this process has the secret key with which the stored values are sealed.

    Raises: CannotOpen, if none of the signing keys or, without any, of the other values can be opened.
    """
    can_open = [SEALED_SIGNING_KEYS.opens(sealer, key) for key in await database.rows(PUBLISHED, now=now)]
    if not can_open:
        can_open = [value.can_be_opened(sealer) for value in await some_values(database, now=now)]
    if can_open and not any(can_open):
        raise CannotOpen("encrypted with an unknown key")


def judge_signing_keys(
    keys: Sequence[StoredSigningKey], sealer: Sealer, *, succeeded_after: timedelta, now: datetime
) -> CheckResult:
    """Return the result for the signing keys: which key signs now, and which key is next or when it will be created.

    `keys` have the same algorithm, and are in the order in which they begin to sign.
    """
    name = "signing_keys"
    if not keys:
        return good(
            name, _("there are no keys yet. The service creates the first key when it starts for the first time")
        )
    unopened = [key.kid for key in keys if not SEALED_SIGNING_KEYS.opens(sealer, key)]
    if unopened:
        text = _(
            "{n} of {total} keys can't be decrypted ({which}). {why}",
            n=len(unopened),
            total=len(keys),
            which=", ".join(unopened),
            why=WRONG_SECRET_KEY,
        )
        return bad(name, text)
    n = len(keys)
    kid = signing_key_of(keys, now).kid
    newest = keys[-1]  # the key that begins to sign last
    if newest.activates_at > now:
        text = _(
            "{n} published. {kid} signs now, and {newest} signs from {time}",
            n=n,
            kid=kid,
            newest=newest.kid,
            time=_minute(newest.activates_at),
        )
    else:
        # If the next key is overdue, the service creates it when it next checks the keys.
        time = _minute(max(now, newest.activates_at + succeeded_after))
        text = _("{n} published. {kid} signs now, and the next key is created at {time}", n=n, kid=kid, time=time)
    return good(name, text)


def judge_sealed(
    values: Sequence[SealedValue], keys: Sequence[StoredSigningKey], sealer: Sealer, *, has_previous: bool
) -> CheckResult:
    """Return the result for stored values and keys, which may need the previous secret key."""
    name = "sealed_data"
    key_values = [value for key in keys for value in SEALED_SIGNING_KEYS.stored_values(key)]
    checked = [*key_values, *values]
    total = len(checked)
    unopened = sum(not value.can_be_opened(sealer) for value in checked)
    if unopened:
        text = _(
            "{n} of {total} values checked can't be decrypted. {why}", n=unopened, total=total, why=WRONG_SECRET_KEY
        )
        return bad(name, text)
    if not checked:
        return good(name, _("no values are stored yet"))
    # A value that was sealed with the current secret key begins with `sealer.prefix`.
    stale = sum(not value.sealed.startswith(sealer.prefix) for value in checked)
    if stale:
        return note(
            name,
            _(
                "{n} of {total} values checked need WXAUTH_SECRET_KEY_PREVIOUS. Run 'wxauth secret reseal' "
                "before you remove this setting",
                n=stale,
                total=total,
            ),
        )
    if has_previous:
        text = _("all {total} values checked can be decrypted without WXAUTH_SECRET_KEY_PREVIOUS", total=total)
        return good(name, text)
    return good(name, _("all {total} values checked can be decrypted", total=total))


def _minute(time: datetime) -> str:
    return time.isoformat(timespec="minutes")
