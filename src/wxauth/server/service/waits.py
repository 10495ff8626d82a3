"""How long the parts wait, gathered in one place for the tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wxauth.server.apps import registry
from wxauth.server.core import background, promises
from wxauth.server.core.database import DEADLINES, Deadlines
from wxauth.server.events import backchannel_logouts, webhook_deliveries
from wxauth.server.keys import keyring
from wxauth.server.limits import turns
from wxauth.server.login import numbers, refusals
from wxauth.server.phones import phones
from wxauth.server.push import receiving
from wxauth.server.users import staff_reads
from wxauth.server.wechat import client, opinions


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Seconds. The defaults are those of the parts. A test of such a wait shortens it."""

    database: Deadlines = DEADLINES
    apps_refresh: float = registry.REFRESH_PAUSE_SECONDS
    backchannel_logouts: float = backchannel_logouts.RECEIVER_TIMEOUT_SECONDS
    background_farewell: float = background.FINISH_SECONDS
    deliveries: float = webhook_deliveries.CHECK_PAUSE_SECONDS
    keys_refresh: float = keyring.REFRESH_PAUSE_SECONDS
    numbers_store: float = numbers.STORE_PAUSE_SECONDS
    opinions: float = opinions.OPINION_TIMEOUT_SECONDS
    phones_farewell: float = phones.WECHAT_SHUTDOWN_SECONDS
    phones_of_others: Sequence[float] = phones.PAUSE_FOR_OTHERS_SECONDS
    promises: float = promises.RETRY_PAUSE_SECONDS
    pushed_messages: float = receiving.STORAGE_TIMEOUT_SECONDS
    refusals_store: float = refusals.STORE_PAUSE_SECONDS
    staff_reads_store: float = staff_reads.STORE_PAUSE_SECONDS
    turns: float = turns.PATIENCE_SECONDS
    webhooks: float = webhook_deliveries.RECEIVER_TIMEOUT_SECONDS
    wechat_busy: Sequence[float] = client.BUSY_PAUSE_SECONDS


WAITS: Final = Waits()
