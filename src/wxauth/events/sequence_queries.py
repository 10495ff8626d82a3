"""The check and the correction of the sequences that number the events of the feed.

For example, a sequence falls behind its table if a tool copies the database without the sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.statements import Statement
from wxauth.events.feed_queries import HIGHEST_POSITION_FRAGMENT, MAX_SENSIBLE_NUMBER

log = get_logger()


@dataclass(frozen=True, slots=True)
class SequenceState:
    """The state of a sequence, and the highest number in the tables that use it."""

    name: str
    """The name of the sequence, quoted for SQL."""
    last_number: int | None
    """The last number that the sequence has produced. It is 0 before the first number.

    None if wxauth's role may not read the sequence.
    """
    highest: int
    """The highest number in the tables that use the sequence."""
    may_set: bool
    """Whether wxauth's database role may read and set the sequence."""
    role: str
    """The name of wxauth's database role, quoted for SQL."""

    @property
    def is_wrong(self) -> bool:
        """Whether the sequence would next produce numbers that are already used, or far too high.

        If the tables already contain numbers that are far too high, a sequence that has last produced the highest of
        them is not wrong, because lower numbers would come before it. If wxauth's role may not read the sequence, the
        result is False.
        """
        if self.last_number is None:
            return False
        is_behind = self.last_number < self.highest
        is_far_too_high = self.last_number > max(self.highest, MAX_SENSIBLE_NUMBER)
        return is_behind or is_far_too_high


# `pg_sequence_last_value` requires the SELECT or the USAGE privilege.
_READ: Final = Statement[SequenceState](f"""
WITH sequences (name, highest) AS (VALUES
    (pg_get_serial_sequence('feed', 'position'), {HIGHEST_POSITION_FRAGMENT}),
    (pg_get_serial_sequence('events_unplaced', 'number'), (SELECT COALESCE(max(number), 0) FROM events_unplaced))
)
SELECT name::regclass::text AS name,
       CASE WHEN has_sequence_privilege(name, 'SELECT, USAGE')
            THEN COALESCE(pg_sequence_last_value(name), 0) END AS last_number,
       highest, has_sequence_privilege(name, 'SELECT') AND has_sequence_privilege(name, 'UPDATE') AS may_set,
       quote_ident(current_user) AS role
  FROM sequences WHERE name IS NOT NULL
""")
# The statement changes nothing if the number is outside the sequence's bounds.
_SET: Final = Statement[bool]("""
SELECT setval(seqrelid, :highest) IS NOT NULL AS is_set FROM pg_sequence
 WHERE seqrelid = :name::text::regclass AND :highest::bigint BETWEEN seqmin AND seqmax
""")


async def read_sequences(reader: Database | Transaction) -> Sequence[SequenceState]:
    """Return the states of the feed's sequences. Leave out a sequence that does not exist."""
    return await reader.rows(_READ)


async def correct_sequences(transaction: Transaction) -> None:
    """Set each wrong sequence to the highest number in its tables, if wxauth's role may set it. Log the outcome.

    The caller holds the lock that `TRY_LOCK_PLACES` takes, so no other process places events during the correction.
    """
    for sequence in await read_sequences(transaction):
        if not sequence.is_wrong:
            continue
        # The highest number of an empty table is 0, but a sequence cannot be set to 0.
        highest = max(sequence.highest, 1)
        if sequence.may_set and await transaction.value(_SET, name=sequence.name, highest=highest):
            log.warning("sequence_corrected", sequence=sequence.name, was=sequence.last_number, now=highest)
        else:
            log.warning(
                "sequence_not_corrected", sequence=sequence.name, at=sequence.last_number, what_to_do="wxauth check"
            )
