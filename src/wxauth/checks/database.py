"""The checks of the database, from the server to the stored values."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from wxauth.apps.registry import Apps
from wxauth.checks import queries
from wxauth.checks.queries import ensure_rights, schema_elsewhere, tables_with_hidden_rows
from wxauth.checks.result import CheckResult, ClockReading, Findings, bad, good, judge_clock, note
from wxauth.checks.sealed import judge_sealed, judge_signing_keys, some_values
from wxauth.core.clock import Clock
from wxauth.core.connecting import Deadlines
from wxauth.core.database import Database
from wxauth.core.libpq import CHANNEL_BINDING_LACKING
from wxauth.core.outages import (
    GRANTS,
    TAKES_NO_WRITES,
    is_refusal_of_parameter,
    is_right_missing,
    outage_text,
    reason_of,
)
from wxauth.core.pooler_queries import statements_for_role
from wxauth.core.revisions import KNOWN_REVISIONS, current_revision, is_usable, refusal_of
from wxauth.core.sealing import WRONG_SECRET_KEY, Sealer
from wxauth.errors import StorageUnavailable
from wxauth.events.feed_queries import SequenceState, read_sequences
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.keys.models import StoredSigningKey, keys_for
from wxauth.keys.queries import HAS_SERVED, PREVIOUS_ISSUER, PUBLISHED
from wxauth.login.login_queries import rehearse_login
from wxauth.settings.settings import Settings
from wxauth_guard.claims import ALGORITHM

STUCK_AFTER: Final = timedelta(hours=1)  # the texts of `_judge_webhooks` name this time
# `serve` corrects any difference, but a larger one is a sign that one of the clocks is not synchronized.
MAX_CLOCK_DIFFERENCE_SECONDS: Final = 5.0
_A_DAY: Final = timedelta(days=1)
_USERS_BEHIND_ONE_ADDRESS: Final = 3  # two users are often the operator's own phones
OLDEST_SERVER: Final = 11  # an older major version of PostgreSQL cannot run the migrations


async def check_database(
    settings: Settings, findings: Findings, *, clock: Clock, deadlines: Deadlines
) -> AsyncGenerator[CheckResult | None, None]:
    """Check the database server, its clock, the schema, a login, and the stored values.

    A check that has nothing to report yields None. `findings` receives the apps and the signing keys for later checks.
    """
    current_check = "database"  # the name of the result if the database stops responding during this check
    async with aclosing(Database(settings.database_url.get_secret_value(), deadlines=deadlines)) as database:
        try:
            async with database.time_limit():  # one time limit for all queries together
                server = await database.one(queries.READ_SERVER)
                yield judge_server(server)
                if server.why_unfit is not None:
                    return
                if database.connector.lacks_channel_binding:
                    yield note("channel binding", CHANNEL_BINDING_LACKING)
                current_check = "stored"
                async for result in _check_stored(database, settings, findings, clock):
                    yield result
        except StorageUnavailable as exc:
            if is_right_missing(exc) and not is_refusal_of_parameter(exc):
                yield bad("schema", _("{trouble}. {to_do}", trouble=reason_of(exc), to_do=GRANTS))
                return
            to_do = _("Make sure that the database is running, and check WXAUTH_DATABASE_URL")
            if is_refusal_of_parameter(exc):
                to_do = _("Check WXAUTH_DATABASE_URL, and the environment variables that begin with PG")
            yield bad(current_check, _("{trouble}. {to_do}", trouble=outage_text(exc), to_do=to_do))


async def _check_stored(
    database: Database, settings: Settings, findings: Findings, clock: Clock
) -> AsyncGenerator[CheckResult | None, None]:
    yield await _check_clock(database, clock)
    revision = await current_revision(database)
    hidden_in = await tables_with_hidden_rows(database)
    if hidden_in:  # the queries of the later checks would miss rows
        yield bad("schema", _text_of_hidden_rows(hidden_in))
        return
    if is_usable(revision):
        await ensure_rights(database)  # `check_database` reports a missing right
    yield judge_schema(revision, elsewhere=None if revision is not None else await schema_elsewhere(database))
    if not is_usable(revision):
        return

    yield _judge_role(await statements_for_role(database))
    now = clock()
    yield await _check_login(database, now)
    sealer = Sealer(settings.secret_keys)
    all_keys = await database.rows(PUBLISHED, now=now)
    access_token_keys = findings.signing_keys = keys_for(ALGORITHM, all_keys)
    succeeded_after = timedelta(seconds=settings.signing_key_max_age - settings.signing_key_lead)
    yield judge_signing_keys(access_token_keys, sealer, succeeded_after=succeeded_after, now=now)
    values = await some_values(database, now=now)
    yield judge_sealed(values, all_keys, sealer, has_previous=bool(settings.secret_key_previous))
    findings.has_served = bool(await database.value(HAS_SERVED))
    yield _judge_issuer(await database.row(PREVIOUS_ISSUER, issuer=settings.issuer), settings.issuer)
    yield judge_sequences(await read_sequences(database))
    yield _judge_webhooks(await database.rows(queries.WEBHOOK_STATES, stuck_since=now - STUCK_AFTER))
    yield _judge_addresses(await database.one(queries.RECENT_ADDRESSES, size=queries.SAMPLE_SIZE, since=now - _A_DAY))
    apps = Apps(database=database, sealer=sealer, settings=settings)
    await apps.refresh()
    yield _judge_unopened_apps(apps.unopened)
    yield _judge_invalid_apps(apps.invalid)
    findings.apps = [known.app for known in apps.all() if known.is_enabled]


def _judge_issuer(row: tuple[str, datetime] | None, issuer: str) -> CheckResult | None:
    if row is None:
        return None
    previous, used_at = row
    text = _(
        "until {time}, wxauth issued tokens as {previous}, and now as {issuer}. Services that still verify "
        "{previous} reject all new tokens. See docs/run/domain.md",
        time=f"{used_at:%Y-%m-%d}",
        previous=previous,
        issuer=issuer,
    )
    return note("previous issuer", text)


def judge_server(server: queries.PostgresServer) -> CheckResult:
    """Return the result for the server, which must be one that wxauth can use, and that accepts writes."""
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
    # At a stricter level, a statement that has waited for a lock fails, or does not see the changes of the transaction
    # that held the lock.
    if server.isolation != "read committed":  # the pooler, the role or the URL sets another default
        text = _(
            "uses the isolation level {isolation}. Set default_transaction_isolation of the role to 'read committed'",
            isolation=server.isolation,
        )
        return bad(name, text)
    return good(name, _("responds (PostgreSQL {version})", version=server.version))


async def _check_clock(database: Database, clock: Clock) -> CheckResult:
    asked_at = clock()
    database_time = await database.time()
    reading = ClockReading.of(database_time, asked_at=asked_at, answered_at=clock())
    whose, why = _("the database's"), _("and wxauth relies on the database's clock")
    allowed = MAX_CLOCK_DIFFERENCE_SECONDS
    return judge_clock(reading, name="clock database", whose=whose, allowed_seconds=allowed, why=why)


def _text_of_hidden_rows(tables: Sequence[str]) -> Text:
    return _(
        "has row-level security, which can hide rows of {tables} from the role of WXAUTH_DATABASE_URL. As a "
        "superuser, give this role the BYPASSRLS attribute with ALTER ROLE",
        tables=", ".join(tables),
    )


async def why_schema_not_found(database: Database) -> Text | None:
    """Return why the role does not find a schema that may exist, as a predicate; None if there is no schema."""
    hidden_in = await tables_with_hidden_rows(database)
    if hidden_in:
        return _text_of_hidden_rows(hidden_in)
    elsewhere = await schema_elsewhere(database)
    return None if elsewhere is None else judge_schema(None, elsewhere=elsewhere).text


def judge_schema(
    revision: str | None, known: Sequence[str] = KNOWN_REVISIONS, *, elsewhere: str | None = None
) -> CheckResult:
    """Return the result for the schema's revision, which must suit this version of wxauth.

    `known` contains the revisions that this version knows, the newest first. `elsewhere` is a schema with wxauth's
    tables, in which the role doesn't find them.
    """
    if revision is None and elsewhere is not None:
        text = _(
            "is in {schema}, but the role of WXAUTH_DATABASE_URL may not use {schema}, or its search_path doesn't "
            "contain {schema}. {to_do}",
            schema=elsewhere,
            to_do=GRANTS,
        )
        return bad("schema", text)
    to_do = _("run 'wxauth migrate'")
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


def _judge_role(statements: Sequence[str]) -> CheckResult | None:
    if not statements:
        return None
    text = _(
        "lacks settings, so one locked row can block all logins, because a pooler keeps no settings of connections. "
        "Run {statements}; and then RECONNECT in PgBouncer's console",
        statements="; ".join(statements),
    )
    return bad("role", text)


async def _check_login(database: Database, now: datetime) -> CheckResult | None:
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
        return bad("sequences", text)
    return None


def _grant_to_set(sequences: Sequence[SequenceState]) -> str:
    names = ", ".join(sequence.name for sequence in sequences)
    return f"GRANT SELECT, UPDATE ON SEQUENCE {names} TO {sequences[0].role}"


def _judge_webhooks(webhooks: Sequence[queries.WebhookState]) -> CheckResult | None:
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


def _judge_addresses(recent: queries.RecentAddresses) -> CheckResult | None:
    if len(recent.addresses) != 1 or recent.user_count < _USERS_BEHIND_ONE_ADDRESS:
        return None
    [address] = recent.addresses
    if ip_address(address).is_global:
        return None
    return note(
        "client addresses",
        _(
            "{n} users logged in within the last day, all from the private address {address}. This is probably the "
            "address of a proxy or of a container network, so all users share one rate limit, and --near accepts "
            "every phone. See 'Client addresses in containers' in docs/run/operations.md",
            n=recent.user_count,
            address=address,
        ),
    )


def _judge_unopened_apps(app_ids: Sequence[str]) -> CheckResult | None:
    if not app_ids:
        return None
    text = _(
        "{some}: users can't log in, because the app's secrets can't be decrypted. {why}",
        some=", ".join(app_ids),
        why=WRONG_SECRET_KEY,
    )
    return bad("apps", text)


def _judge_invalid_apps(field_names: Mapping[str, Sequence[str]]) -> CheckResult | None:
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
