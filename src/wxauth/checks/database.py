"""The checks of the database, from the server to the stored values."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Final

from wxauth.apps.registry import Apps
from wxauth.checks import queries
from wxauth.checks.outsider_queries import read_revocations
from wxauth.checks.outsiders import judge_outsiders
from wxauth.checks.result import CheckResult, ClockReading, Findings, bad, good, judge_clock, note
from wxauth.checks.rights_queries import RoleRights, read_rights
from wxauth.checks.sealed import judge_sealed, judge_signing_keys, some_values
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.deadlines import Deadlines
from wxauth.core.outage_texts import TAKES_NO_WRITES, outage_text
from wxauth.core.revisions import KNOWN_REVISIONS, current_revision, is_usable, refusal_of
from wxauth.core.sealing import WRONG_SECRET_KEY, Sealer
from wxauth.errors import StorageUnavailable
from wxauth.events.sequence_queries import SequenceState, read_sequences
from wxauth.i18n import lazy_gettext as _
from wxauth.keys.models import StoredSigningKey, keys_for
from wxauth.keys.queries import PUBLISHED
from wxauth.login.login_queries import rehearse_login
from wxauth.settings.settings import Settings
from wxauth_guard.claims import ALGORITHM

STUCK_AFTER: Final = timedelta(hours=1)
"""The time after which a webhook counts as stuck, if it has accepted no event while a delivery is waiting.

The texts of `_judge_webhooks` name this time.
"""
MAX_CLOCK_DIFFERENCE_SECONDS: Final = 5.0
"""The largest allowed difference, in seconds, between the clocks of this machine and of the database.

`serve` corrects any difference, but a larger difference is a sign that one of the clocks is not synchronized.
"""
OLDEST_SERVER: Final = 11
"""The oldest major version of PostgreSQL that can run the migrations."""


async def check_database(
    settings: Settings, findings: Findings, *, clock: Clock, deadlines: Deadlines
) -> AsyncGenerator[CheckResult | None, None]:
    """Check the database server, its clock, the rights of roles, the schema, a login, and the stored values.

    A check that has nothing to report yields None. `findings` receives the apps and the signing keys for later checks.
    If the database does not respond, the last result says so. If a result shows that the later checks cannot work, for
    example because the schema does not exist yet, they are omitted.
    """
    current_check = "database"  # the name of the result if the database stops responding during this check
    async with aclosing(Database(settings.database_url.get_secret_value(), deadlines=deadlines)) as database:
        try:
            async with database.time_limit():  # one time limit for all queries together
                server = await database.one(queries.READ_SERVER)
                yield judge_server(server)
                if server.why_unfit is not None:
                    return
                current_check = "stored"
                async for result in _check_stored(database, settings, findings, clock):
                    yield result
        except StorageUnavailable as exc:
            text = _(
                "{trouble}. Make sure that the database is running, and check WXAUTH_DATABASE_URL",
                trouble=outage_text(exc),
            )
            yield bad(current_check, text)


async def _check_stored(
    database: Database, settings: Settings, findings: Findings, clock: Clock
) -> AsyncGenerator[CheckResult | None, None]:
    """Check the clock, the rights, the schema, a login and the stored values.

    Store the apps and the signing keys in `findings`.

    Without sufficient rights or a usable schema, the later checks are omitted, because their queries would fail or miss
    rows.
    """
    yield await _check_clock(database, clock)
    rights = await read_rights(database)
    for result in judge_outsiders(await read_revocations(database)):
        yield result
    fault = _judge_rights(rights)
    if fault is not None:
        yield fault
        return
    revision = await current_revision(database)
    yield judge_schema(revision, rights)
    if not is_usable(revision):
        return

    now = clock()
    yield await _check_login(database, now)
    sealer = Sealer(settings.secret_keys)
    all_keys = await database.rows(PUBLISHED, now=now)
    access_token_keys = findings.signing_keys = keys_for(ALGORITHM, all_keys)
    max_age = timedelta(seconds=settings.signing_key_max_age)
    yield judge_signing_keys(access_token_keys, sealer, max_age=max_age, now=now)
    values = await some_values(database, now=now)
    yield judge_sealed(values, all_keys, sealer, has_previous=bool(settings.secret_key_previous))
    yield judge_sequences(await read_sequences(database))
    yield _judge_webhooks(await database.rows(queries.WEBHOOK_STATES, stuck_since=now - STUCK_AFTER))
    apps = Apps(database=database, sealer=sealer, settings=settings)
    await apps.refresh()
    yield _judge_unopened_apps(apps.unopened)
    yield _judge_invalid_apps(apps.invalid)
    findings.apps = [known.app for known in apps.all() if known.is_enabled]


def judge_server(server: queries.PostgresServer) -> CheckResult:
    """Return the result for the server: engine, PL/pgSQL, encoding, whether it can write, version, and isolation level.

    The isolation level must be READ COMMITTED. At a stricter level, a statement that has waited for a lock fails, or
    does not see the changes of the transaction that held the lock.
    """
    name = "database"
    if server.why_unfit is not None:
        return bad(name, server.why_unfit)
    if server.is_standby:
        return bad(name, _("is a standby, which doesn't accept writes. Set WXAUTH_DATABASE_URL to the primary server"))
    if server.is_read_only:
        return bad(name, TAKES_NO_WRITES)
    if server.major_version < OLDEST_SERVER:
        text = _(
            "is PostgreSQL {version}, but wxauth requires version {oldest} or later",
            version=server.version,
            oldest=OLDEST_SERVER,
        )
        return bad(name, text)
    if server.isolation != "read committed":  # the pooler, the role or the URL sets another default
        text = _(
            "uses the isolation level {isolation}. Set default_transaction_isolation of the role to 'read committed'",
            isolation=server.isolation,
        )
        return bad(name, text)
    return good(name, _("responds (PostgreSQL {version})", version=server.version))


async def _check_clock(database: Database, clock: Clock) -> CheckResult:
    """Compare this machine's clock with the database's clock, and return the result."""
    asked_at = clock()
    database_time = await database.time()
    reading = ClockReading.of(database_time, asked_at=asked_at, answered_at=clock())
    whose, why = _("the database's"), _("and wxauth relies on the database's clock")
    return judge_clock(reading, name="clock database", whose=whose, allowed=MAX_CLOCK_DIFFERENCE_SECONDS, why=why)


def _judge_rights(rights: RoleRights) -> CheckResult | None:
    """Return a bad result if wxauth's role cannot use the tables, or might not see all rows; otherwise None."""
    if rights.missing_to_serve is not None:
        text = _(
            "can't be used by the role of WXAUTH_DATABASE_URL. As the schema's owner, run {grant};",
            grant=rights.missing_to_serve,
        )
        return bad("schema", text)
    if rights.elsewhere is not None:
        text = _(
            "is in {schema}, which isn't in the search_path of the role of WXAUTH_DATABASE_URL. As a "
            "superuser, run ALTER ROLE {role} SET search_path = {schema};",
            schema=rights.elsewhere,
            role=rights.role,
        )
        return bad("schema", text)
    if rights.hidden_in:
        text = _(
            "has row-level security, which can hide rows of {tables} from the role of WXAUTH_DATABASE_URL. "
            "As a superuser or the owner of the tables, run {to_run};",
            tables=", ".join(rights.hidden_in),
            to_run=rights.to_see_all_rows,
        )
        return bad("schema", text)
    return None


def judge_schema(revision: str | None, rights: RoleRights, known: Sequence[str] = KNOWN_REVISIONS) -> CheckResult:
    """Return the result for the schema's revision, which must suit this version of wxauth.

    `rights` says which rights the role lacks for a migration. `known` contains the revisions that this version knows,
    the newest first.
    """
    to_do = _("run 'wxauth migrate'")
    if rights.missing_to_migrate is not None:
        to_do = _(
            "as the owner of the database, run {grant}; then run 'wxauth migrate'", grant=rights.missing_to_migrate
        )
    if revision is None:
        return bad("schema", _("hasn't been created yet: {to_do}", to_do=to_do))
    refusal = refusal_of(revision, known)
    if refusal is not None:
        return bad("schema", refusal)
    newest = known[0]
    if not is_usable(revision, known):
        text = _(
            "is at {revision}, but this version of wxauth requires {newest}: {to_do}",
            revision=revision,
            newest=newest,
            to_do=to_do,
        )
        return bad("schema", text)
    if revision != newest:
        text = _(
            "is at {revision}, which belongs to a newer version of wxauth. The running version can still serve "
            "requests",
            revision=revision,
        )
        return note("schema", text)
    return good("schema", _("is at {revision}, as this version of wxauth requires", revision=revision))


async def _check_login(database: Database, now: datetime) -> CheckResult | None:
    """Run the statements of a login, and roll them back.

    Return a result if the database rejects the statements; otherwise None.
    """
    reason = await rehearse_login(database, now=now)
    if reason is None:
        return None
    text = _(
        "is rejected by the database: {reason}. Check the privileges and triggers of wxauth's tables",
        reason=reason,
    )
    return bad("login", text)


def judge_sequences(sequences: Sequence[SequenceState]) -> CheckResult | None:
    """Return the result for sequences that are wrong, or that the service may not correct; None if there are none.

    A wrong sequence would next produce numbers that are already used, or far too high. This version of wxauth works
    with wrong sequences, but an operator may have to return to an older version, which needs correct sequences.
    """
    wrong = [sequence for sequence in sequences if sequence.is_wrong]
    not_permitted = [sequence for sequence in sequences if not sequence.may_set]
    numbers = ", ".join(f"{sequence.name} ({sequence.last_number}, {sequence.highest})" for sequence in wrong)
    if wrong and not_permitted:
        text = _(
            "don't match the last numbers of their tables (sequence, table): {told}. The service still "
            "orders events correctly, but the role can't set the sequence. As the sequence's owner, run "
            "{grant};",
            told=numbers,
            grant=_grant_to_set(not_permitted),
        )
        return bad("sequences", text)
    if wrong:
        text = _(
            "don't match the last numbers of their tables (sequence, table): {told}. 'wxauth serve' "
            "corrects the sequences when it next orders events. Check whether anything else was left out "
            "when the database was copied",
            told=numbers,
        )
        return bad("sequences", text)
    if not_permitted:
        text = _(
            "can't be corrected by the service if they fall behind their tables. As the sequences' owner, run {grant};",
            grant=_grant_to_set(not_permitted),
        )
        return note("sequences", text)
    return None


def _grant_to_set(sequences: Sequence[SequenceState]) -> str:
    """Return the GRANT that lets wxauth's role set these sequences."""
    names = ", ".join(sequence.name for sequence in sequences)
    return f"GRANT SELECT, UPDATE ON SEQUENCE {names} TO {sequences[0].role}"


def _judge_webhooks(webhooks: Sequence[queries.WebhookState]) -> CheckResult | None:
    """Return the result for the webhooks; None if no webhooks exist.

    The result names the stuck webhooks or, if there are none, the disabled webhooks.
    """
    if not webhooks:
        return None
    name = "webhooks"
    disabled = [webhook.name for webhook in webhooks if not webhook.is_enabled]
    stuck = [webhook.name for webhook in webhooks if webhook.is_enabled and webhook.is_stuck]
    if stuck:
        text = _(
            "{some}: events are waiting, but none has been delivered for an hour. Run 'wxauth webhooks test {first}'",
            some=", ".join(stuck),
            first=stuck[0],
        )
        return bad(name, text)
    if disabled:
        text = _(
            "{some}: disabled, either by you or by a response with status 410. To enable the webhook, run "
            "'wxauth webhooks set {first} --enable'",
            some=", ".join(disabled),
            first=disabled[0],
        )
        return note(name, text)
    return good(name, _("{n} webhooks, none of which has been failing for an hour or more", n=len(webhooks)))


def _judge_unopened_apps(app_ids: Sequence[str]) -> CheckResult | None:
    """Return the result for the apps in `Apps.unopened`; None if there are no such apps."""
    if not app_ids:
        return None
    text = _(
        "{some}: users can't log in, because the app's secrets can't be decrypted. {why}",
        some=", ".join(app_ids),
        why=WRONG_SECRET_KEY,
    )
    return bad("apps", text)


def _judge_invalid_apps(field_names: Mapping[str, Sequence[str]]) -> CheckResult | None:
    """Return the result for the apps in `Apps.invalid`; None if there are no such apps."""
    if not field_names:
        return None
    text = _(
        "{some}: users can't log in, because required fields are no longer valid. Remove these apps, and add them "
        "again",
        some=", ".join(f"{app_id} ({', '.join(names)})" for app_id, names in field_names.items()),
    )
    return bad("apps", text)


async def read_signing_keys(settings: Settings, *, clock: Clock, deadlines: Deadlines) -> Sequence[StoredSigningKey]:
    """Return the stored access-token keys that are published now. Raises: StorageUnavailable."""
    async with aclosing(Database(settings.database_url.get_secret_value(), deadlines=deadlines)) as database:
        return keys_for(ALGORITHM, await database.rows(PUBLISHED, now=clock()))
