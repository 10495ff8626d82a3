"""Judges what an administrator of the database has to look after, before it stops the service."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from wxauth.server.checks.result import CheckResult, bad, note
from wxauth.server.checks.rows import Upkeep

LONG_IDLE: Final = timedelta(hours=1)
"""How long a session may be idle in a transaction. Until it ends, nothing that was deleted since can be cleaned up."""
OLD_ID: Final = 10**9
"""The age of a transaction id from which on vacuuming is behind. PostgreSQL begins at a fifth of that by default."""
MUCH_RETAINED: Final = 2**30
"""Bytes of write-ahead log that an unread slot may retain before it counts as forgotten."""
ENDS_SOON: Final = timedelta(days=30)
ENDS_VERY_SOON: Final = timedelta(days=7)


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
