"""All sealed values in the database, for checking them, resealing them, and erasing those that no key opens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, NamedTuple, TypeVar

from wxauth.errors import Title
from wxauth.server.apps.rows import SealedApp, stored_apps
from wxauth.server.checks.result import CheckResult, bad, good, note
from wxauth.server.checks.rows import some_phone_answers, some_session_keys
from wxauth.server.core.database import Database
from wxauth.server.core.sealing import (
    WRONG_SECRET_KEY,
    CannotOpen,
    Sealer,
    app_context,
    phone_answer_context,
    session_key_context,
    signing_key_context,
    webhook_secret_context,
)
from wxauth.server.events.models import Webhook
from wxauth.server.events.webhook_rows import all_webhooks
from wxauth.server.keys.models import StoredSigningKey, has_next, signing_key_of
from wxauth.server.phones.rows import StoredAnswer
from wxauth.server.session_keys.rows import SealedSessionKey

Row = TypeVar("Row")


class SealedValue(NamedTuple):
    """A sealed value, and the context that it is bound to."""

    sealed: bytes | None
    """None if there is no value."""
    context: bytes


@dataclass(frozen=True, slots=True)
class SealedKind(Generic[Row]):
    """A kind of rows that contain sealed values."""

    values: Callable[[Row], Sequence[SealedValue]]
    """The values of a row, in the order in which its replacement takes them."""

    def opens(self, sealer: Sealer, row: Row) -> bool:
        """Whether all values of the row open."""
        return all(sealed is None or sealer.opens(sealed, context=context) for sealed, context in self.values(row))

    def sealed_anew(self, sealer: Sealer, row: Row) -> list[bytes | None] | None:
        """The values of a row, sealed with the current secret key; None if one of them does not open."""
        try:
            return [
                None if sealed is None else sealer.seal(sealer.open(sealed, context=context), context=context)
                for sealed, context in self.values(row)
            ]
        except CannotOpen:
            return None


SEALED_SESSION_KEYS: Final[SealedKind[SealedSessionKey]] = SealedKind(
    lambda key: [SealedValue(key.sealed, session_key_context(key.app_id, key.openid))]
)
SEALED_PHONE_ANSWERS: Final[SealedKind[StoredAnswer]] = SealedKind(
    lambda answer: [SealedValue(answer.sealed, phone_answer_context(answer.code_hash))]
)
SEALED_WEBHOOKS: Final[SealedKind[Webhook]] = SealedKind(
    lambda webhook: [
        SealedValue(sealed, webhook_secret_context(webhook.id)) for sealed in (webhook.secret, webhook.former_secret)
    ]
)
SEALED_APPS: Final[SealedKind[SealedApp]] = SealedKind(lambda app: [SealedValue(app.secrets, app_context(app.app_id))])
SEALED_SIGNING_KEYS: Final[SealedKind[StoredSigningKey]] = SealedKind(
    lambda key: [SealedValue(key.private_key, signing_key_context(key.kid))]
)


@dataclass(slots=True)
class SealedCounts:
    """How many values of each kind were resealed or erased."""

    signing_keys: int = 0
    session_keys: int = 0
    phone_answers: int = 0
    webhook_secrets: int = 0
    """If erased, their webhooks are disabled until an administrator renews the secret."""
    apps: int = 0
    """If erased, they must be added again."""


async def some_values(database: Database, *, now: datetime) -> list[tuple[bytes, bytes]]:
    """Some values of each kind, except signing keys, which are few and all checked."""
    values = [
        *(value for key in await some_session_keys(database) for value in SEALED_SESSION_KEYS.values(key)),
        *(
            value
            for answer in await some_phone_answers(database, now=now)
            for value in SEALED_PHONE_ANSWERS.values(answer)
        ),
        *(value for webhook in await all_webhooks(database) for value in SEALED_WEBHOOKS.values(webhook)),
        *(value for app in await stored_apps(database) for value in SEALED_APPS.values(app)),
    ]
    return [(sealed, context) for sealed, context in values if sealed is not None]


def judge_signing_keys(
    keys: Sequence[StoredSigningKey], sealer: Sealer, *, max_age: timedelta, now: datetime
) -> CheckResult:
    """Whether each key opens, which one signs, and when the next one does."""
    name = "signing_keys"
    if not keys:
        return good(name, "none yet: the first is made when the service first starts", "尚无：服务首次启动时生成")
    unopened = [key.kid for key in keys if not SEALED_SIGNING_KEYS.opens(sealer, key)]
    if unopened:
        which, count = ", ".join(unopened), len(unopened)
        message = f"{count} of {len(keys)} cannot be decrypted ({which}); {WRONG_SECRET_KEY.en}"
        return bad(name, message, f"{len(keys)} 个密钥中有 {count} 个无法解密（{which}）；{WRONG_SECRET_KEY.zh}")
    current, newest = signing_key_of(keys, now), keys[-1]
    if newest.activates_at > now and not has_next(keys, now):
        time = _minute(newest.activates_at)
        ahead = f"{newest.kid} signs only from {time}: the clock of the replica that made it was ahead"
        late = f"{newest.kid} 要到 {time} 才用于签名，因为生成它的机器时钟偏快"
        chinese = f"{late}：请检查各副本的时钟，再运行 'wxauth keys rotate'"
        return note(name, f"{ahead}: see the replicas' clocks, then run 'wxauth keys rotate'", chinese)
    if newest.activates_at > now:
        time = _minute(newest.activates_at)
        plan = Title(f"{newest.kid} from {time}", f"{time} 起改用 {newest.kid}")
    else:
        time = _minute(max(now, newest.created_at + max_age))
        plan = Title(f"the next is made {time}", f"下一个在 {time} 生成")
    message = f"{len(keys)} published; {current.kid} signs now, {plan.en}"
    return good(name, message, f"已发布 {len(keys)} 个；当前用 {current.kid} 签名，{plan.zh}")


def judge_sealed(
    values: Sequence[tuple[bytes, bytes]], keys: Sequence[StoredSigningKey], sealer: Sealer, *, has_previous: bool
) -> CheckResult:
    """Whether these values open, and whether one still needs a former secret key."""
    name = "sealed_data"
    every = [*((key.private_key, signing_key_context(key.kid)) for key in keys), *values]
    total, unopened = len(every), sum(not sealer.opens(sealed, context=context) for sealed, context in every)
    if unopened:
        message = f"{unopened} of {total} values looked at cannot be decrypted; {WRONG_SECRET_KEY.en}"
        return bad(name, message, f"抽查的 {total} 项中有 {unopened} 项无法解密；{WRONG_SECRET_KEY.zh}")
    if not every:
        return good(name, "nothing stored yet", "尚无数据")
    stale = sum(not sealed.startswith(sealer.prefix) for sealed, _ in every)
    if stale:
        message = f"{stale} of {total} values looked at need WXAUTH_SECRET_KEY_PREVIOUS: run 'wxauth secret reseal'"
        chinese = (
            f"抽查的 {total} 项中有 {stale} 项仍需 WXAUTH_SECRET_KEY_PREVIOUS：移除它之前请运行 'wxauth secret reseal'"
        )
        return note(name, f"{message} before you remove it", chinese)
    if has_previous:
        message = f"can be decrypted; of {total} values looked at none needs WXAUTH_SECRET_KEY_PREVIOUS"
        return good(name, message, f"可以解密；抽查的 {total} 项都不再需要 WXAUTH_SECRET_KEY_PREVIOUS")
    return good(name, f"can be decrypted; {total} values looked at", f"可以解密；抽查了 {total} 项")


def _minute(time: datetime) -> str:
    return time.isoformat(timespec="minutes")
