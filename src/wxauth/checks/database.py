"""The database, and what is stored in it."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta
from typing import Final

from wxauth.apps.registry import Apps
from wxauth.apps.rows import SEALED, stored_apps
from wxauth.checks.clocks import Reading, compare_with_database
from wxauth.checks.findings import Findings
from wxauth.checks.result import Result, bad, good, note
from wxauth.checks.rows import (
    Rights,
    Server,
    rights,
    server,
    some_phone_answers,
    some_session_keys,
    some_users,
)
from wxauth.core.clock import Clock
from wxauth.core.database import WHERE_NOTHING_IS_KEPT, Database, Deadlines, reason_of
from wxauth.core.schema import current_revision, is_usable, newest_revision
from wxauth.core.sealing import (
    CannotOpen,
    Sealer,
    app_context,
    phone_answer_context,
    session_key_context,
    signing_key_context,
)
from wxauth.core.settings import Settings
from wxauth.core.tables import StoredSigningKey
from wxauth.errors import StorageUnavailable
from wxauth.keys.rows import published_keys
from wxauth.keys.succession import has_next, signing

OLDEST_SERVER: Final = 11
"""The first PostgreSQL that understands the migrations."""

_WITHOUT_LIMITS: Final = "the database gives up no statement by itself, so that one locked row can hold up every login"
_WHAT_THEY_SPARE: Final = "?pgbouncer=prepared in WXAUTH_DATABASE_URL spares PostgreSQL most of a login's work"
_WHAT_OPENS: Final = "put the key that sealed them into WXAUTH_SECRET_KEY_PREVIOUS"


async def check_database(
    settings: Settings, found: Findings, *, clock: Clock, deadlines: Deadlines
) -> AsyncGenerator[Result, None]:
    """The server, its clock, the schema, the keys, and whether what is sealed opens."""
    database = Database(settings.database_url.get_secret_value(), deadlines=deadlines)
    name = "database"
    try:
        async with database.answering():  # for all of it
            yield judge_server(await server(database))
            if unlimited := await database.unlimited():
                yield bad("database limits", f"{_WITHOUT_LIMITS}: run as its administrator: {'; '.join(unlimited)}")
            if (pooler := await _judge_pooler(database)) is not None:
                yield pooler
            name = "stored"
            async for result in _check_stored(database, settings, found, clock):
                yield result
    except StorageUnavailable as exc:
        yield bad(name, f"does not answer: {reason_of(exc)}; see that it runs, and WXAUTH_DATABASE_URL")
    finally:
        await database.aclose()


async def _judge_pooler(database: Database) -> Result | None:
    keeps_prepared = await database.keeps_prepared()
    if database.prepares and keeps_prepared is False:
        return bad("database pooler", f"forgets prepared statements, so that requests fail: {WHERE_NOTHING_IS_KEPT}")
    if keeps_prepared and not database.prepares:
        return note("database pooler", f"keeps prepared statements: {_WHAT_THEY_SPARE}")
    return None


async def _check_stored(
    database: Database, settings: Settings, found: Findings, clock: Clock
) -> AsyncGenerator[Result, None]:
    asked_at = clock()
    theirs = await database.time()
    reading = Reading.of(theirs, asked_at=asked_at, answered_at=clock())
    yield compare_with_database(reading)

    its_rights = await rights(database)
    if its_rights.missing_to_serve is not None:
        yield bad("schema", f"is not for the role of WXAUTH_DATABASE_URL: as its owner, {its_rights.missing_to_serve};")
        return
    revision = await current_revision(database)
    yield _judge_schema(revision, its_rights)
    if not is_usable(revision):
        return

    now = clock()
    sealer = Sealer(settings.secret_keys)
    keys = found.signing_keys = await published_keys(database, now=now)
    yield _judge_signing_keys(keys, sealer, max_age=timedelta(seconds=settings.signing_key_max_age), now=now)
    values = [
        *((key.sealed, session_key_context(key.app_id, key.openid)) for key in await some_session_keys(database)),
        *((it.sealed, phone_answer_context(it.code_hash)) for it in await some_phone_answers(database, now=now)),
        *(
            (sealed, app_context(app.app_id, name))
            for app in await stored_apps(database)
            for name in SEALED
            if (sealed := getattr(app, name)) is not None
        ),
    ]
    yield _judge_sealed(values, keys, sealer, has_previous=bool(settings.secret_key_previous))
    apps = Apps(database, sealer, settings.apps)
    await apps.refresh()
    found.apps = [known.app for known in apps.all() if known.is_enabled]
    found.users = {app.app_id: await some_users(database, app.app_id) for app in found.apps}


def judge_server(server: Server) -> Result:
    """Whether it can be written to, is new enough, and lets whoever waited for a lock see what was done meanwhile."""
    name = "database"
    if server.is_standby:
        return bad(name, "is a standby, which takes no writes: name the primary in WXAUTH_DATABASE_URL")
    if server.is_read_only:
        return bad(name, "takes no writes: see default_transaction_read_only of the database and its role")
    if server.version_number // 10000 < OLDEST_SERVER:
        return bad(name, f"is PostgreSQL {server.version}: wants {OLDEST_SERVER} or newer")
    if server.isolation != "read committed":  # behind a pooler, or by the URL itself
        default = "default_transaction_isolation"
        return bad(name, f"isolates by {server.isolation}: wants {default} of the role to be 'read committed'")
    return good(name, f"answers, PostgreSQL {server.version}")


def _judge_schema(revision: str | None, its_rights: Rights) -> Result:
    to_do = "run 'wxauth migrate'"
    if its_rights.missing_to_migrate is not None:
        to_do = f"as the owner of the database, {its_rights.missing_to_migrate}; then {to_do}"
    if revision is None:
        return bad("schema", f"is not there yet: {to_do}")
    if not is_usable(revision):
        return bad("schema", f"is at {revision}, behind {newest_revision()}: {to_do}")
    if revision != newest_revision():
        return note("schema", f"is at {revision}, of a newer version than this one, which serves on with it")
    return good("schema", f"at {revision}, as this version needs it")


def _judge_signing_keys(
    keys: Sequence[StoredSigningKey], sealer: Sealer, *, max_age: timedelta, now: datetime
) -> Result:
    name = "signing_keys"
    if not keys:
        return good(name, "none yet: the first is made when the service first starts")
    unopened = [key.kid for key in keys if not _opens(sealer, key.private_key, signing_key_context(key.kid))]
    if len(unopened) == len(keys):
        message = "WXAUTH_SECRET_KEY is not the one that sealed what is stored; see WXAUTH_SECRET_KEY_PREVIOUS"
        return bad(name, message)
    if unopened:
        return bad(name, f"{len(unopened)} of {len(keys)} do not open ({', '.join(unopened)}): {_WHAT_OPENS}")
    current, newest = signing(keys, now), keys[-1]
    if newest.activates_at > now and not has_next(keys, now):
        ahead = f"{newest.kid} is to sign only {_minute(newest.activates_at)}, for its maker's clock was ahead"
        return note(name, f"{ahead}: see the replicas' clocks, then run 'wxauth keys rotate'")
    if newest.activates_at > now:
        plan = f"{newest.kid} from {_minute(newest.activates_at)}"
    else:
        plan = f"the next is made {_minute(max(now, newest.created_at + max_age))}"
    return good(name, f"{len(keys)} published; {current.kid} signs now, {plan}")


def _judge_sealed(
    values: Sequence[tuple[bytes, bytes]], keys: Sequence[StoredSigningKey], sealer: Sealer, *, has_previous: bool
) -> Result:
    name = "sealed_data"
    unopened = sum(not _opens(sealer, sealed, context) for sealed, context in values)
    if unopened:
        return bad(name, f"{unopened} of {len(values)} values looked at do not open: {_WHAT_OPENS}")
    if not keys and not values:
        return good(name, "nothing stored yet")
    every = [*(key.private_key for key in keys), *(sealed for sealed, _ in values)]
    total, stale = len(every), sum(not sealed.startswith(sealer.prefix) for sealed in every)
    if stale:
        message = f"{stale} of {total} values looked at need WXAUTH_SECRET_KEY_PREVIOUS: run 'wxauth secret reseal'"
        return note(name, f"{message} before you remove it")
    if has_previous:
        return good(name, f"opens; of {total} values looked at none needs WXAUTH_SECRET_KEY_PREVIOUS")
    return good(name, f"opens; {total} values looked at")


def _opens(sealer: Sealer, sealed: bytes, context: bytes) -> bool:
    try:
        sealer.open(sealed, context=context)
    except CannotOpen:
        return False
    return True


def _minute(time: datetime) -> str:
    return time.isoformat(timespec="minutes")
