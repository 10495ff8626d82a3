"""Checks the database, from its server to the values stored in it."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from wxauth.errors import StorageUnavailable
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.server.apps.registry import Apps
from wxauth.server.checks import queries
from wxauth.server.checks.result import CheckResult, ClockReading, Findings, bad, compare, good, note
from wxauth.server.checks.rights import judge_outsiders
from wxauth.server.checks.rights_queries import MOST_MEMBERS, MOST_REVOCATIONS, REVOCATIONS, RoleRights, read_rights
from wxauth.server.checks.sealed import judge_sealed, judge_signing_keys, some_values
from wxauth.server.clients.queries import ALL_CLIENTS
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, Deadlines
from wxauth.server.core.models import all_tables
from wxauth.server.core.outages import WHERE_NOTHING_IS_KEPT, outage_text
from wxauth.server.core.revisions import KNOWN_REVISIONS, current_revision, is_usable, refusal_of, why_unfit
from wxauth.server.core.rights_queries import our_tables
from wxauth.server.core.sealing import WRONG_SECRET_KEY, Sealer
from wxauth.server.core.settings import Settings
from wxauth.server.events.sequence_queries import SequenceState, read_sequences
from wxauth.server.keys.models import keys_for
from wxauth.server.keys.queries import PUBLISHED
from wxauth.server.login.login_queries import rehearse_login
from wxauth.tokens.claims import ALGORITHM

LONG_IDLE: Final = timedelta(hours=1)
"""How long a session may be idle in a transaction. Until it ends, nothing that was deleted since can be cleaned up."""
OLD_ID: Final = 10**9
"""The age of a transaction id from which on vacuuming is behind. PostgreSQL begins at a fifth of that by default."""
MUCH_RETAINED: Final = 2**30
"""Bytes of write-ahead log that an unread slot may retain before it counts as forgotten."""
ENDS_SOON: Final = timedelta(days=30)
ENDS_VERY_SOON: Final = timedelta(days=7)
STUCK_AFTER: Final = timedelta(hours=1)
"""A webhook is stuck if it has accepted nothing for this long while a delivery waits."""
CLOCK_DIFFERENCE: Final = 5.0
"""Seconds. `serve` corrects any difference, but a larger one is a sign that one of the clocks is not synchronized."""
OLDEST_SERVER: Final = 11
"""The first PostgreSQL version that can run the migrations."""
_FIRST_WITH_STATISTICS_OF_WAL: Final = 140000
_FIRST_WITH_VERSIONS_OF_ORDER: Final = 150000
MUCH_WAL: Final = 2**30
"""Bytes of whole-page images in the write-ahead log below which there is nothing worth saving."""
SELDOM: Final = 15 * 60
"""Seconds between two checkpoints that are rare enough."""


async def check_database(
    settings: Settings, found: Findings, *, clock: Clock, deadlines: Deadlines
) -> AsyncGenerator[CheckResult | None, None]:
    """Check the server, its clock, the schema, the keys, and whether encrypted values can be decrypted."""
    database = Database(settings.database_url.get_secret_value(), deadlines=deadlines)
    name = "database"
    try:
        async with database.answering():  # one deadline for all queries together
            found_server = await database.one(queries.READ_SERVER)
            yield judge_server(found_server)
            if why_unfit(found_server.engine, found_server.has_plpgsql, found_server.encoding) is not None:
                return
            if found_server.version_number >= _FIRST_WITH_STATISTICS_OF_WAL:
                yield judge_wal(await database.one(queries.READ_WAL))
            if found_server.version_number >= _FIRST_WITH_VERSIONS_OF_ORDER:
                yield _judge_order(await database.one(queries.READ_ORDER))
            if unlimited := await queries.missing_limits(database):
                yield bad(
                    "database limits",
                    _(
                        "the database cancels no statement by itself, so that one locked row can hold up every login: "
                        "run as its administrator: {to_run}",
                        to_run="; ".join(unlimited),
                    ),
                )
            yield await _judge_pooler(database)
            name = "stored"
            now = clock()
            upkeep = await database.one(queries.READ_UPKEEP, tables=[*all_tables().tables], idle_since=now - LONG_IDLE)
            for neglected in judge_upkeep(upkeep):
                yield neglected
            yield judge_certificate(await queries.certificate_of(database), now=now)
            async for result in _check_stored(database, settings, found, clock):
                yield result
    except StorageUnavailable as exc:
        text = _("{trouble}; see that it runs, and WXAUTH_DATABASE_URL", trouble=outage_text(exc))
        yield bad(name, text)
    finally:
        await database.aclose()


async def _judge_pooler(database: Database) -> CheckResult | None:
    are_kept = await queries.keeps_prepared(database)
    if database.prepares and are_kept is False:
        text = _("forgets prepared statements, so that requests fail: {to_do}", to_do=WHERE_NOTHING_IS_KEPT)
        return bad("database pooler", text)
    if are_kept and not database.prepares:
        return note(
            "database pooler",
            _(
                "keeps prepared statements: ?pgbouncer=prepared in WXAUTH_DATABASE_URL spares PostgreSQL most of a "
                "login's work"
            ),
        )
    return None


async def _check_stored(
    database: Database, settings: Settings, found: Findings, clock: Clock
) -> AsyncGenerator[CheckResult | None, None]:
    asked_at = clock()
    theirs = await database.time()
    reading = ClockReading.of(theirs, asked_at=asked_at, answered_at=clock())
    whose, bound = _("the database's"), _("whose time counts")
    yield compare(reading, name="clock database", whose=whose, allowed=CLOCK_DIFFERENCE, bound=bound)

    its_rights = await read_rights(database)
    revocations = await database.rows(
        REVOCATIONS, tables=our_tables(), most=MOST_REVOCATIONS, most_members=MOST_MEMBERS
    )
    for result in judge_outsiders(revocations):
        yield result
    if its_rights.missing_to_serve is not None:
        text = _(
            "is not for the role of WXAUTH_DATABASE_URL: as its owner, {grant};", grant=its_rights.missing_to_serve
        )
        yield bad("schema", text)
        return
    if its_rights.elsewhere is not None:
        text = _(
            "is in {schema}, which is not in the search_path of the role of WXAUTH_DATABASE_URL: as a superuser, ALTER "
            "ROLE {role} SET search_path = {schema};",
            schema=its_rights.elsewhere,
            role=its_rights.role,
        )
        yield bad("schema", text)
        return
    if its_rights.hidden_in:
        text = _(
            "row level security can hide rows of {tables} from the role of WXAUTH_DATABASE_URL: as a superuser, or the "
            "owner of the tables, {to_run};",
            tables=", ".join(its_rights.hidden_in),
            to_run=its_rights.to_see_all_rows,
        )
        yield bad("schema", text)
        return
    revision = await current_revision(database)
    yield judge_schema(revision, its_rights)
    if not is_usable(revision):
        return

    now = clock()
    if (reason := await rehearse_login(database, now=now)) is not None:
        text = _("is refused by the database: {reason}; see the privileges and triggers of its tables", reason=reason)
        yield bad("login", text)
    sealer = Sealer(settings.secret_keys)
    keys = found.signing_keys = keys_for(ALGORITHM, await database.rows(PUBLISHED, now=now))
    yield judge_signing_keys(keys, sealer, max_age=timedelta(seconds=settings.signing_key_max_age), now=now)
    values = await some_values(database, now=now)
    yield judge_sealed(values, keys, sealer, has_previous=bool(settings.secret_key_previous))
    yield judge_sequences(await read_sequences(database))
    if webhooks := await database.rows(queries.WEBHOOK_STATES, stuck_since=now - STUCK_AFTER):
        yield _judge_webhooks(webhooks)
    apps = Apps(database=database, sealer=sealer, settings=settings)
    await apps.refresh()
    if apps.unopened:
        text = _("{some}: nobody can log in, because the secrets cannot be decrypted; {why}")
        yield bad("apps", Text(text, some=", ".join(apps.unopened), why=WRONG_SECRET_KEY))
    found.apps = [known.app for known in apps.all() if known.is_enabled]
    if found.apps and not any(map(settings.may_sign_up, found.apps)) and not await database.value(queries.HAS_USERS):
        text = _("is closed, and there is no user yet: nobody can log in before 'wxauth users import'")
        yield note("sign-up", text)
    if settings.admin_page and not await database.value(queries.HAS_ADMINISTRATORS):
        text = _("opens for nobody, because no user is an administrator: 'wxauth users grant USER_ID admin'")
        yield note("console", text)
    found.sites = [client for client in await database.rows(ALL_CLIENTS) if client.is_site]
    found.users = {
        app.app_id: await database.one(queries.SOME_USERS, app_id=app.app_id, size=queries.SAMPLE) for app in found.apps
    }


def judge_server(server: queries.PostgresServer) -> CheckResult:
    """Whether the server runs the schema, accepts writes, is new enough, encodes in UTF-8, isolates by READ COMMITTED.

    At a stricter level, a statement that has waited for a lock fails, or does not see what the lock's holder did.
    """
    name = "database"
    unfit = why_unfit(server.engine, server.has_plpgsql, server.encoding)
    if unfit is not None:
        return bad(name, unfit)
    if server.is_standby:
        return bad(name, _("is a standby, which takes no writes: name the primary in WXAUTH_DATABASE_URL"))
    if server.is_read_only:
        return bad(name, _("takes no writes: see default_transaction_read_only of the database and its role"))
    if server.version_number // 10000 < OLDEST_SERVER:
        text = _("is PostgreSQL {version}: must be {oldest} or newer", version=server.version, oldest=OLDEST_SERVER)
        return bad(name, text)
    if server.isolation != "read committed":  # a pooler, the role or the URL has set another default
        text = _(
            "isolates by {isolation}: default_transaction_isolation of the role must be 'read committed'",
            isolation=server.isolation,
        )
        return bad(name, text)
    return good(name, _("answers, PostgreSQL {version}", version=server.version))


def judge_wal(wal: queries.WalStatistics) -> CheckResult | None:
    """How to log fewer or smaller whole-page images; None if there are few.

    After a checkpoint, PostgreSQL logs the whole of each page on its first change. With lz4, a returning login among
    ten million users wrote 5.5 KB instead of 13.5 KB.
    """
    is_compressed, is_seldom = wal.compression != "off", wal.checkpoint_timeout >= SELDOM
    if wal.page_bytes < MUCH_WAL or (is_compressed and is_seldom):
        return None
    method = "lz4" if wal.has_lz4 else "on"
    to_run = [
        *([] if is_compressed else [f"ALTER SYSTEM SET wal_compression = '{method}'"]),
        *(
            []
            if is_seldom
            else ["ALTER SYSTEM SET checkpoint_timeout = '30min'", "ALTER SYSTEM SET max_wal_size = '4GB'"]
        ),
        "SELECT pg_reload_conf()",
    ]
    gigabyte = 2**30
    saving = (
        _("less frequent checkpoints would write fewer of them")
        if is_compressed
        else _("compression saves some {n:.1f} GB of that", n=wal.page_bytes / gigabyte / 2)
    )
    return note(
        "database wal",
        _(
            "wrote {total:.0f} GB since {since:%Y-%m-%d}, {pages:.0f} GB of it whole pages: {saving}; as its "
            "administrator: {to_run}",
            total=wal.bytes / gigabyte,
            since=wal.since,
            pages=wal.page_bytes / gigabyte,
            saving=saving,
            to_run="; ".join(to_run),
        ),
    )


def _judge_order(order: queries.TextOrder) -> CheckResult | None:
    """How to mend indexes after the order of text has changed under the database; None if it has not."""
    if order.recorded == order.present and not order.columns:
        return None
    name = order.database
    # PostgreSQL refuses to refresh a version that was, or is, none.
    refresh = f"ALTER DATABASE {name} REFRESH COLLATION VERSION"
    if None in (order.recorded, order.present):
        refresh = (
            "UPDATE pg_database SET datcollversion = pg_database_collation_actual_version(oid) "
            "WHERE datname = current_database()"
        )
    judged = bad if order.columns else note
    return judged(
        "database collation",
        _(
            "was made with version {recorded} of the order of text, which is {present} now: indexes that depend on it "
            "may miss rows, {whose}: as its administrator, first {reindex}; then {refresh}",
            recorded=order.recorded or _("none"),
            present=order.present or _("none"),
            whose=_("such as those of {columns}", columns=", ".join(order.columns[:3]))
            if order.columns
            else _("but none of wxauth's"),
            reindex=f"REINDEX DATABASE {name}",
            refresh=refresh,
        ),
    )


def judge_upkeep(upkeep: queries.Upkeep) -> Iterator[CheckResult]:
    """A result for each thing that is neglected."""
    if not upkeep.vacuums:
        yield bad(
            "database autovacuum",
            _(
                "is off: tables grow, and at last the database takes no writes: as its administrator, {to_run}",
                to_run="ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf()",
            ),
        )
    elif upkeep.not_vacuumed:
        to_run = "; ".join(f"ALTER TABLE {table} RESET (autovacuum_enabled)" for table in upkeep.not_vacuumed)
        text = _("is off for {tables}: {to_run}", tables=", ".join(upkeep.not_vacuumed), to_run=to_run)
        yield bad("database autovacuum", text)
    if upkeep.inactive_slots:
        judged = bad if upkeep.retained >= MUCH_RETAINED else note
        yield judged(
            "database slots",
            _(
                "nobody reads {slots}, and the log that it retains ({n:.1f} GB) fills the disk: have its reader "
                "connect, or pg_drop_replication_slot('…')",
                slots=", ".join(upkeep.inactive_slots),
                n=upkeep.retained / 2**30,
            ),
        )
    if upkeep.oldest_id >= OLD_ID:
        yield bad(
            "database ids",
            _(
                "the oldest transaction id is {n} million old; at 2147 million the database takes no writes: end old "
                "transactions, prepared ones and slots, then VACUUM (FREEZE) the oldest of pg_database",
                n=upkeep.oldest_id // 10**6,
            ),
        )
    if upkeep.idle_transactions:
        yield bad(
            "database transactions",
            _(
                "idle for over an hour, so that nothing deleted since is cleaned up, process {pids}: SELECT "
                "pg_terminate_backend({pid})",
                pids=", ".join(map(str, upkeep.idle_transactions)),
                pid=upkeep.idle_transactions[0],
            ),
        )


def judge_certificate(certificate: bytes | None, *, now: datetime) -> CheckResult | None:
    """Whether the certificate of the database, as DER, ends soon; None if it does not, or there is none."""
    if certificate is None:
        return None
    end = x509.load_der_x509_certificate(certificate).not_valid_after_utc
    if end - now > ENDS_SOON:
        return None
    judged = note if end - now > ENDS_VERY_SOON else bad
    return judged(
        "database certificate",
        _(
            "{ends} on {end:%Y-%m-%d}: renew it and reload the server, or sslmode=verify-full refuses it",
            ends=_("ended") if end <= now else _("ends"),
            end=end,
        ),
    )


def judge_schema(revision: str | None, its_rights: RoleRights, known: Sequence[str] = KNOWN_REVISIONS) -> CheckResult:
    """Judge the schema's revision against those that this version knows, newest first."""
    to_do = _("run 'wxauth migrate'")
    if its_rights.missing_to_migrate is not None:
        to_do = _(
            "as the owner of the database, {grant}; then run 'wxauth migrate'", grant=its_rights.missing_to_migrate
        )
    if revision is None:
        return bad("schema", _("is not there yet: {to_do}", to_do=to_do))
    newest = known[0]
    if (refusal := refusal_of(revision, known)) is not None:
        return bad("schema", refusal)
    if not is_usable(revision, known):
        text = _("is at {revision}, behind {newest}: {to_do}", revision=revision, newest=newest, to_do=to_do)
        return bad("schema", text)
    if revision != newest:
        text = _("is at {revision}, of a newer version than this one, which serves on with it", revision=revision)
        return note("schema", text)
    return good("schema", _("at {revision}, as this version needs it", revision=revision))


def judge_sequences(sequences: Sequence[SequenceState]) -> CheckResult | None:
    """Whether a sequence is behind its table, and whether the service may correct it; None if all is well.

    Places are right even where it may not, but an older version, to which operators may have to return, needs it.
    """
    wrong = [sequence for sequence in sequences if sequence.is_wrong]
    not_set = [sequence for sequence in sequences if not sequence.may_set]
    told = ", ".join(f"{it.name} ({it.at}, {it.highest})" for it in wrong)
    names = ", ".join(it.name for it in not_set)
    grant = f"GRANT SELECT, UPDATE ON SEQUENCE {names} TO {not_set[0].role}" if not_set else ""
    if wrong and not_set:
        text = _(
            "not at the last number of the table (sequence, table): {told}; the service places events rightly all the "
            "same, but may not set the sequence: as its owner, {grant};",
            told=told,
            grant=grant,
        )
        return bad("sequences", text)
    if wrong:
        text = _(
            "not at the last number of the table (sequence, table): {told}; 'wxauth serve' corrects it when it begins "
            "to place events, but see what else was not moved with the database",
            told=told,
        )
        return bad("sequences", text)
    if not_set:
        text = _("the service may not set them if they fall behind their tables: as their owner, {grant};", grant=grant)
        return note("sequences", text)
    return None


def _judge_webhooks(webhooks: Sequence[queries.WebhookState]) -> CheckResult:
    name = "webhooks"
    disabled = [webhook.name for webhook in webhooks if not webhook.is_enabled]
    stuck = [webhook.name for webhook in webhooks if webhook.is_enabled and webhook.is_stuck]
    if stuck:
        text = _(
            "{some}: nothing delivered for an hour, while something waits: see 'wxauth webhooks test {first}'",
            some=", ".join(stuck),
            first=stuck[0],
        )
        return bad(name, text)
    if disabled:
        text = _(
            "{some}: disabled, by you or by its 410: 'wxauth webhooks set {first} --enable'",
            some=", ".join(disabled),
            first=disabled[0],
        )
        return note(name, text)
    return good(name, _("{n}, none of which has failed for an hour", n=len(webhooks)))
