"""The query for the metrics that are read from the database."""

from typing import Final

from sqlmodel import Field, SQLModel

from wxauth.core.statements import Statement
from wxauth.login.count_queries import OPEN_SESSIONS_FRAGMENT


class Statistics(SQLModel):
    """The values of the metrics that are read from the database.

    The name of a metric is the name of its field with the prefix `wxauth_`.
    """

    sessions: int = Field(description="Open sessions; an estimate if there are many.")
    webhook_oldest_pending_seconds: float = Field(
        description="Seconds since the oldest event that waits for its place in the feed was recorded, or since the "
        "oldest delivery that an enabled webhook has not accepted was queued; 0 if there is none."
    )
    erasures_waiting: int = Field(description="Erased users whose data is not completely removed yet.")
    sweep_overdue_seconds: float = Field(
        description="Seconds since the daily sweep that is most overdue was due; 0 if none is overdue."
    )
    signing_key_age_seconds: float | None = Field(description="Age of the current signing key.")


# `LEAST` and `GREATEST` ignore nulls, so a number of seconds is 0 if there is no row, or if a time is in the future.
# Only the age of the signing key can be null. It is the time since the newest active ES256 key began to sign. RS256
# keys do not count, because they sign no access tokens. `:sweeps` contains the names of the daily sweeps.
STATISTICS: Final = Statement[Statistics](f"""
SELECT ({OPEN_SESSIONS_FRAGMENT}) AS sessions,
       (SELECT count(*) FROM erasures) AS erasures_waiting,
       extract(epoch FROM GREATEST(:now - LEAST(
           (SELECT min(oldest.at) FROM webhooks w CROSS JOIN LATERAL (
                   SELECT at FROM deliveries d
                    WHERE d.receiver_id = w.id AND d.state = 'pending' ORDER BY d.id LIMIT 1) oldest
             WHERE w.is_enabled),
           (SELECT at FROM events WHERE id = (SELECT event_id FROM events_unplaced ORDER BY event_id LIMIT 1))),
       interval '0'))::float AS webhook_oldest_pending_seconds,
       extract(epoch FROM GREATEST(:now - (SELECT min(due_at) FROM sweeps WHERE name = ANY (:sweeps)), interval '0'))
           ::float AS sweep_overdue_seconds,
       extract(epoch FROM :now - (SELECT max(activates_at) FROM signing_keys
                                   WHERE alg = 'ES256' AND activates_at <= :now))::float AS signing_key_age_seconds
""")
