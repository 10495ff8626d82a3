"""Checks the database, the values stored in it, and what its administrator has to look after."""

import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from wxauth.errors import StorageUnavailable, Title
from wxauth.server.apps.registry import Apps
from wxauth.server.checks.result import CheckResult, ClockReading, Findings, bad, compare_with_database, good, note
from wxauth.server.checks.rows import (
    PostgresServer,
    RoleRights,
    Upkeep,
    WalStatistics,
    WebhookState,
    certificate_of,
    has_administrators,
    has_users,
    keeps_prepared,
    missing_limits,
    read_rights,
    read_server,
    read_upkeep,
    read_wal,
    some_users,
    webhook_states,
)
from wxauth.server.checks.sealed import judge_sealed, judge_signing_keys, some_values
from wxauth.server.clients.rows import all_clients
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, Deadlines
from wxauth.server.core.outages import WHERE_NOTHING_IS_KEPT, trouble_of
from wxauth.server.core.revisions import KNOWN_REVISIONS, OF_PREVIEW, current_revision, is_of_preview, is_usable
from wxauth.server.core.sealing import Sealer
from wxauth.server.core.settings import Settings
from wxauth.server.keys.models import keys_for
from wxauth.server.keys.rows import published_keys
from wxauth.server.login.login_rows import rehearse_login
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
OLDEST_SERVER: Final = 11
"""The first PostgreSQL version that can run the migrations."""
_OTHER_ENGINE: Final = re.compile(r"openGauss|GaussDB|OpenTenBase|TBase|Greenplum|Redshift|CockroachDB", re.IGNORECASE)
"""In version() of those that speak PostgreSQL's protocol, but lack what docs/database.md names."""
_FIRST_WITH_STATISTICS_OF_WAL: Final = 140000
MUCH_WAL: Final = 2**30
"""Bytes of whole-page images in the write-ahead log below which there is nothing worth saving."""
SELDOM: Final = 15 * 60
"""Seconds between two checkpoints that are rare enough."""
_WITHOUT_LIMITS: Final = Title(
    "the database cancels no statement by itself, so that one locked row can hold up every login",
    "数据库不会自行中止语句，一行被锁就可能阻塞所有登录",
)
_WHAT_THEY_SPARE: Final = Title(
    "?pgbouncer=prepared in WXAUTH_DATABASE_URL spares PostgreSQL most of a login's work",
    "在 WXAUTH_DATABASE_URL 中加上 ?pgbouncer=prepared，可省去登录时 PostgreSQL 的大部分工作",
)


async def check_database(
    settings: Settings, found: Findings, *, clock: Clock, deadlines: Deadlines
) -> AsyncGenerator[CheckResult, None]:
    """Check the server, its clock, the schema, the keys, and whether encrypted values can be decrypted."""
    database = Database(settings.database_url.get_secret_value(), deadlines=deadlines)
    name = "database"
    try:
        async with database.answering():  # one deadline for all queries together
            found_server = await read_server(database)
            yield judge_server(found_server)
            if not will_do(found_server):
                return
            if found_server.version_number >= _FIRST_WITH_STATISTICS_OF_WAL:
                advice = judge_wal(await read_wal(database))
                if advice is not None:
                    yield advice
            if unlimited := await missing_limits(database):
                to_run = "; ".join(unlimited)
                message = f"{_WITHOUT_LIMITS.en}: run as its administrator: {to_run}"
                yield bad("database limits", message, f"{_WITHOUT_LIMITS.zh}：请以数据库管理员身份执行：{to_run}")
            if (pooler := await _judge_pooler(database)) is not None:
                yield pooler
            name = "stored"
            now = clock()
            for neglected in judge_upkeep(await read_upkeep(database, idle_since=now - LONG_IDLE)):
                yield neglected
            certificate = judge_certificate(await certificate_of(database), now=now)
            if certificate is not None:
                yield certificate
            async for result in _check_stored(database, settings, found, clock):
                yield result
    except StorageUnavailable as exc:
        trouble = trouble_of(exc)
        message = f"{trouble.en}; see that it runs, and WXAUTH_DATABASE_URL"
        yield bad(name, message, f"{trouble.zh}；请确认数据库在运行，并检查 WXAUTH_DATABASE_URL")
    finally:
        await database.aclose()


async def _judge_pooler(database: Database) -> CheckResult | None:
    are_kept = await keeps_prepared(database)
    if database.prepares and are_kept is False:
        message = f"forgets prepared statements, so that requests fail: {WHERE_NOTHING_IS_KEPT.en}"
        return bad("database pooler", message, f"不保留预编译语句，请求会失败：{WHERE_NOTHING_IS_KEPT.zh}")
    if are_kept and not database.prepares:
        message = f"keeps prepared statements: {_WHAT_THEY_SPARE.en}"
        return note("database pooler", message, f"保留预编译语句：{_WHAT_THEY_SPARE.zh}")
    return None


async def _check_stored(
    database: Database, settings: Settings, found: Findings, clock: Clock
) -> AsyncGenerator[CheckResult, None]:
    asked_at = clock()
    theirs = await database.time()
    reading = ClockReading.of(theirs, asked_at=asked_at, answered_at=clock())
    yield compare_with_database(reading)

    its_rights = await read_rights(database)
    if its_rights.missing_to_serve is not None:
        grant = its_rights.missing_to_serve
        message = f"is not for the role of WXAUTH_DATABASE_URL: as its owner, {grant};"
        yield bad("schema", message, f"WXAUTH_DATABASE_URL 的角色无权使用：请以所有者身份执行 {grant};")
        return
    revision = await current_revision(database)
    yield judge_schema(revision, its_rights)
    if not is_usable(revision):
        return

    now = clock()
    if (reason := await rehearse_login(database, now=now)) is not None:
        message = f"is refused by the database: {reason}; see the privileges and triggers of its tables"
        yield bad("login", message, f"被数据库拒绝：{reason}；请检查表的权限与触发器")
    sealer = Sealer(settings.secret_keys)
    keys = found.signing_keys = keys_for(ALGORITHM, await published_keys(database, now=now))
    yield judge_signing_keys(keys, sealer, max_age=timedelta(seconds=settings.signing_key_max_age), now=now)
    values = await some_values(database, now=now)
    yield judge_sealed(values, keys, sealer, has_previous=bool(settings.secret_key_previous))
    if webhooks := await webhook_states(database, stuck_since=now - STUCK_AFTER):
        yield _judge_webhooks(webhooks)
    apps = Apps(database=database, sealer=sealer, settings=settings)
    await apps.refresh()
    found.apps = [known.app for known in apps.all() if known.is_enabled]
    if found.apps and not any(map(settings.may_sign_up, found.apps)) and not await has_users(database):
        message = "is closed, and there is no user yet: nobody can log in before 'wxauth users import'"
        yield note("sign-up", message, "已关闭，且尚无任何用户：运行 'wxauth users import' 之前无人能登录")
    if settings.admin_page and not await has_administrators(database):
        message = "opens for nobody, because no user is an administrator: 'wxauth users grant USER_ID admin'"
        yield note("console", message, "尚无管理员，无人能打开：请运行 'wxauth users grant USER_ID admin'")
    found.sites = [client for client in await all_clients(database) if client.is_site]
    found.users = {app.app_id: await some_users(database, app.app_id) for app in found.apps}


def will_do(server: PostgresServer) -> bool:
    """Whether the engine can run the schema: PostgreSQL, or one that is changed below SQL alone, such as Aurora."""
    return server.has_plpgsql and not _OTHER_ENGINE.search(server.engine)


def judge_server(server: PostgresServer) -> CheckResult:
    """Whether the server runs the schema, accepts writes, is new enough, encodes in UTF-8, isolates by READ COMMITTED.

    At a stricter level, a statement that has waited for a lock fails, or does not see what the lock's holder did.
    """
    name = "database"
    if not will_do(server):
        other = _OTHER_ENGINE.search(server.engine)
        engine = Title(other[0], other[0]) if other else Title("an engine without PL/pgSQL", "没有 PL/pgSQL 的引擎")
        message = f"is {engine.en}, which cannot run the schema: docs/database.md names databases that do"
        return bad(name, message, f"是{engine.zh}，无法运行 wxauth 的表结构：可用的数据库见 docs/database.md")
    if server.is_standby:
        message = "is a standby, which takes no writes: name the primary in WXAUTH_DATABASE_URL"
        return bad(name, message, "是备库，不能写入：请在 WXAUTH_DATABASE_URL 中填写主库")
    if server.is_read_only:
        message = "takes no writes: see default_transaction_read_only of the database and its role"
        return bad(name, message, "不能写入：请检查数据库及其角色的 default_transaction_read_only")
    if server.version_number // 10000 < OLDEST_SERVER:
        message = f"is PostgreSQL {server.version}: must be {OLDEST_SERVER} or newer"
        return bad(name, message, f"是 PostgreSQL {server.version}：需要 {OLDEST_SERVER} 或更新版本")
    if server.encoding != "UTF8":
        to_run = "createdb --encoding=UTF8 --template=template0"
        message = f"is encoded in {server.encoding}: must be UTF8; dump it, and restore it into a new one: {to_run}"
        return bad(name, message, f"编码为 {server.encoding}：必须是 UTF8；请导出后恢复到新建的数据库：{to_run}")
    if server.isolation != "read committed":  # a pooler, the role or the URL has set another default
        default = "default_transaction_isolation"
        message = f"isolates by {server.isolation}: {default} of the role must be 'read committed'"
        return bad(name, message, f"隔离级别为 {server.isolation}：请把该角色的 {default} 设为 'read committed'")
    return good(name, f"answers, PostgreSQL {server.version}", f"响应正常，PostgreSQL {server.version}")


def judge_wal(wal: WalStatistics) -> CheckResult | None:
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
    pages, total = (f"{size / 2**30:.0f} GB" for size in (wal.page_bytes, wal.bytes))
    saved, day = f"{wal.page_bytes / 2**31:.1f} GB", f"{wal.since:%Y-%m-%d}"
    saving = Title(
        "less frequent checkpoints would write fewer of them"
        if is_compressed
        else f"compression saves some {saved} of that",
        "减少检查点即可少写" if is_compressed else f"压缩可节省约 {saved}",
    )
    message = f"wrote {total} since {day}, {pages} of it whole pages: {saving.en}; as its administrator"
    chinese = f"自 {day} 以来写入 {total}，其中整页 {pages}：{saving.zh}；可由数据库管理员执行"
    return note("database wal", f"{message}: {'; '.join(to_run)}", f"{chinese}：{'; '.join(to_run)}")


def judge_upkeep(upkeep: Upkeep) -> Iterator[CheckResult]:
    """A result for each thing that is neglected."""
    if not upkeep.vacuums:
        message = "is off: tables grow, and at last the database takes no writes: as its administrator, ALTER SYSTEM"
        to_run = "SET autovacuum = on; ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf()"
        chinese = f"已关闭：表会膨胀，最终数据库不再接受写入；请由管理员执行 ALTER SYSTEM {to_run}"
        yield bad("database autovacuum", f"{message} {to_run}", chinese)
    elif upkeep.not_vacuumed:
        tables = ", ".join(upkeep.not_vacuumed)
        to_run = "; ".join(f"ALTER TABLE {table} RESET (autovacuum_enabled)" for table in upkeep.not_vacuumed)
        message = f"is off for {tables}: {to_run}"
        yield bad("database autovacuum", message, f"对 {tables} 关闭了：{to_run}")
    if upkeep.inactive_slots:
        slots, retained = ", ".join(upkeep.inactive_slots), f"{upkeep.retained / 2**30:.1f} GB"
        judged = bad if upkeep.retained >= MUCH_RETAINED else note
        remedy = "have its reader connect, or pg_drop_replication_slot('…')"
        message = f"nobody reads {slots}, and the log that it retains ({retained}) fills the disk: {remedy}"
        chinese = (
            f"无人读取 {slots}，为其保留的日志（{retained}）会占满磁盘：请恢复读取方，或 pg_drop_replication_slot('…')"
        )
        yield judged("database slots", message, chinese)
    if upkeep.oldest_id >= OLD_ID:
        millions = f"{upkeep.oldest_id // 10**6}"
        message = f"the oldest transaction id is {millions} million old; at 2147 million the database takes no writes"
        remedy = "end old transactions, prepared ones and slots, then VACUUM (FREEZE) the oldest of pg_database"
        chinese = f"最旧的事务 ID 已有 {millions} 百万，到 2147 百万时数据库不再接受写入"
        to_do = "请结束旧事务、预备事务与复制槽，再对 pg_database 中最旧的库执行 VACUUM (FREEZE)"
        yield bad("database ids", f"{message}: {remedy}", f"{chinese}：{to_do}")
    if upkeep.idle_transactions:
        pids = ", ".join(map(str, upkeep.idle_transactions))
        to_run = f"SELECT pg_terminate_backend({upkeep.idle_transactions[0]})"
        message = f"idle for over an hour, so that nothing deleted since is cleaned up, process {pids}: {to_run}"
        chinese = f"空闲超过一小时，其后删除的数据都无法清理，进程 {pids}：{to_run}"
        yield bad("database transactions", message, chinese)


def judge_certificate(certificate: bytes | None, *, now: datetime) -> CheckResult | None:
    """Whether the certificate of the database, as DER, ends soon; None if it does not, or there is none."""
    if certificate is None:
        return None
    end = x509.load_der_x509_certificate(certificate).not_valid_after_utc
    if end - now > ENDS_SOON:
        return None
    day, is_over = f"{end:%Y-%m-%d}", end <= now
    judged = note if end - now > ENDS_VERY_SOON else bad
    message = (
        f"{'ended' if is_over else 'ends'} on {day}: renew it and reload the server, or sslmode=verify-full refuses"
    )
    chinese = (
        f"{'已于' if is_over else '将于'} {day} 到期：请更新并让服务器重新加载，否则 sslmode=verify-full 的连接会失败"
    )
    return judged("database certificate", f"{message} it", chinese)


def judge_schema(revision: str | None, its_rights: RoleRights, known: Sequence[str] = KNOWN_REVISIONS) -> CheckResult:
    """Judge the schema's revision against those that this version knows, newest first."""
    to_do = Title("run 'wxauth migrate'", "请运行 'wxauth migrate'")
    if its_rights.missing_to_migrate is not None:
        grant = its_rights.missing_to_migrate
        to_do = Title(
            f"as the owner of the database, {grant}; then {to_do.en}",
            f"请先以数据库所有者身份执行 {grant}，再{to_do.zh[1:]}",
        )
    if revision is None:
        return bad("schema", f"is not there yet: {to_do.en}", f"尚未创建：{to_do.zh}")
    newest = known[0]
    if is_of_preview(revision, known):
        return bad("schema", OF_PREVIEW.en, OF_PREVIEW.zh)
    if not is_usable(revision, known):
        message = f"is at {revision}, behind {newest}: {to_do.en}"
        return bad("schema", message, f"当前为 {revision}，落后于 {newest}：{to_do.zh}")
    if revision != newest:
        message = f"is at {revision}, of a newer version than this one, which serves on with it"
        return note("schema", message, f"当前为 {revision}，属于更新的版本；本版本仍可继续服务")
    return good("schema", f"at {revision}, as this version needs it", f"当前为 {revision}，符合本版本要求")


def _judge_webhooks(webhooks: Sequence[WebhookState]) -> CheckResult:
    name = "webhooks"
    disabled = [webhook.name for webhook in webhooks if not webhook.is_enabled]
    stuck = [webhook.name for webhook in webhooks if webhook.is_enabled and webhook.is_stuck]
    if stuck:
        some, look = ", ".join(stuck), f"'wxauth webhooks test {stuck[0]}'"
        message = f"{some}: nothing delivered for an hour, while something waits: see {look}"
        return bad(name, message, f"{some}：一小时未投递成功，仍有事件在等待：请运行 {look}")
    if disabled:
        some, enable = ", ".join(disabled), f"'wxauth webhooks set {disabled[0]} --enable'"
        return note(
            name,
            f"{some}: disabled, by you or by its 410: {enable}",
            f"{some}：已停用（人工停用或其返回 410）：{enable}",
        )
    number = len(webhooks)
    return good(name, f"{number}, none of which has failed for an hour", f"{number} 个，均未连续失败一小时")
