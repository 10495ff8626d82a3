"""The JSON documents that third parties publish about their clients. Each process fetches and caches them.

If a process cannot fetch a document again, it uses the cached one for up to another day, unless the document is gone
or breaks a rule.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Generic, TypeVar

import httpx

from wxauth.core.background import cancel, once
from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.outbound.connection import HttpAnswer
from wxauth.outbound.receivers import ADDRESS_NOT_ALLOWED, DIRECT, USER_AGENT
from wxauth.outbound.transport import ANSWER
from wxauth.settings.urls import host_of

FETCH_SECONDS: Final = 4.0
MAX_DOCUMENT: Final = 10 * 1024  # bytes
_MIN_FRESH: Final = timedelta(minutes=5)  # whatever the `Cache-Control` says
_MAX_FRESH: Final = timedelta(days=1)
_MAX_STALE: Final = timedelta(days=1)  # after the document has expired, if it cannot be fetched again
PAUSE: Final = timedelta(minutes=1)  # after a refused or failed fetch, and between two fetches by `get_again`
_MAX_ENTRIES: Final = 1000  # documents and failures
_JSON: Final = re.compile(r"application/([!#$&^_.+a-z0-9-]+\+)?json", re.ASCII | re.IGNORECASE)
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=\"?([0-9]{1,9})\b", re.IGNORECASE)
_NOT_CACHEABLE: Final = re.compile(r"\bno-(store|cache)\b", re.IGNORECASE)
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)  # stands for a limit that does not apply

log = get_logger()
Document = TypeVar("Document")


class DocumentOutcome(StrEnum):
    OK = "ok"
    FAILED = "failed"  # no response in time, or a status other than 200
    REFUSED = "refused"  # The address is not allowed, or the response breaks a rule.


class NotFetched(Exception):
    """The error for a fetch without a usable document. The message is for the log, and does not quote the response.

    If `is_invalid`, the document no longer exists or breaks a rule. Then a cached copy is not usable either.
    """

    def __init__(self, outcome: DocumentOutcome, reason: str, *, is_invalid: bool = False) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.is_invalid = is_invalid or outcome is DocumentOutcome.REFUSED


async def fetch(
    transport: httpx.AsyncBaseTransport, url: str, patience: float, *, is_direct: bool
) -> tuple[bytes, timedelta]:
    """Return the JSON at a URL, and the time for which to cache it. `patience` is in seconds. Raises: NotFetched.

    With `is_direct`, the request does not use `RECEIVERS_PROXY`, because anyone can choose the URL of a document, and
    wxauth cannot check to which address the proxy connects.
    """
    headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
    try:
        extensions = {"max_body": MAX_DOCUMENT, DIRECT: is_direct}
        request = httpx.Request("GET", url, headers=headers, extensions=extensions)
        async with asyncio.timeout(patience):
            response = await transport.handle_async_request(request)
    except (httpx.InvalidURL, UnicodeError):  # the pattern of URLs accepts some invalid hosts
        raise NotFetched(DocumentOutcome.REFUSED, "the URL's host is neither a name nor an address") from None
    except TimeoutError:
        raise NotFetched(DocumentOutcome.FAILED, "no response in time") from None
    except httpx.TransportError as exc:
        # `ReceiverTransport` raises RemoteProtocolError for a response that is too large, or that is not HTTP. For an
        # address that is not allowed, only the text of its ConnectError shows the reason.
        is_refused = isinstance(exc, httpx.RemoteProtocolError) or str(exc) == ADDRESS_NOT_ALLOWED
        outcome = DocumentOutcome.REFUSED if is_refused else DocumentOutcome.FAILED
        raise NotFetched(outcome, str(exc)) from None
    answer: HttpAnswer = response.extensions[ANSWER]
    if answer.status != httpx.codes.OK:
        is_invalid = answer.status in (httpx.codes.NOT_FOUND, httpx.codes.GONE)
        raise NotFetched(DocumentOutcome.FAILED, f"status {answer.status}", is_invalid=is_invalid)
    if answer.is_encoded or not _JSON.fullmatch((answer.content_type or "").partition(";")[0].strip()):
        raise NotFetched(DocumentOutcome.REFUSED, "the response isn't plain JSON")
    return answer.body, _fresh_time(answer.cache_control or "")


def _fresh_time(cache_control: str) -> timedelta:  # RFC 9111, section 5.2.2
    max_age = _MAX_AGE.search(cache_control)
    if max_age is None or _NOT_CACHEABLE.search(cache_control):
        return _MIN_FRESH
    return min(max(timedelta(seconds=int(max_age[1])), _MIN_FRESH), _MAX_FRESH)


@dataclass(slots=True)
class _Entry(Generic[Document]):
    value: Document | None = None  # None if the document is gone or breaks a rule, too
    fresh_until: datetime = _LONG_AGO
    paused_until: datetime = _LONG_AGO  # after a failed or refused fetch
    again_paused_until: datetime = _LONG_AGO  # after a fetch by `get_again`
    is_invalid: bool = False

    def usable_value(self, now: datetime) -> Document | None:
        """Return the document if it is fresh, or has expired less than `_MAX_STALE` ago."""
        return self.value if now < self.fresh_until + _MAX_STALE else None

    def drop_future_times(self, now: datetime) -> None:
        """Drop times that are too far in the future, because they were computed before the clock was set back."""
        if self.fresh_until > now + _MAX_FRESH:
            self.fresh_until = _LONG_AGO
        if self.paused_until > now + PAUSE:
            self.paused_until = _LONG_AGO
        if self.again_paused_until > now + PAUSE:
            self.again_paused_until = _LONG_AGO


@dataclass(slots=True)
class DocumentCache(Generic[Document]):
    """A cache that fetches documents of one kind, and finds them by URL.

    The names of log events begin with `kind`. `read` fetches a document, and returns it with the time to cache it.
    """

    kind: str
    clock: Clock
    read: Callable[[str], Awaitable[tuple[Document, timedelta]]]
    on_outcome: Callable[[DocumentOutcome], None] | None = None
    # The most recently used entry is at the end.
    _entries: OrderedDict[str, _Entry[Document]] = field(default_factory=OrderedDict)
    _under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def get(self, url: str, *, admit: Callable[[], Awaitable[None]] | None = None) -> Document | None:
        """Return the document at a URL; None if it is not usable. If a fetch fails, log why.

        `admit` is called before a fetch if no usable document is cached, and may raise an exception to prevent the
        fetch.
        """
        now = self.clock()
        entry = self._entries.get(url, _Entry())
        entry.drop_future_times(now)
        if url in self._entries:
            self._entries.move_to_end(url)
        if now >= max(entry.fresh_until, entry.paused_until):
            is_new_fetch = entry.usable_value(now) is None and url not in self._under_way
            if admit is not None and is_new_fetch:
                await admit()
            await self._renew(url)
        # If the URL was new, `_fetch` has created and cached its own entry.
        return self._entries.get(url, entry).usable_value(now)

    async def get_again(self, url: str) -> Document | None:
        """Fetch a cached document again even if it is fresh, at most once per `PAUSE`; None during the pause."""
        now = self.clock()
        entry = self._entries.get(url, _Entry())
        if now < max(entry.again_paused_until, entry.paused_until):
            return None
        entry.again_paused_until = now + PAUSE
        await self._renew(url)
        return self._entries.get(url, entry).usable_value(now)

    def knows(self, url: str) -> bool:
        """Return whether the cache contains the document, or the last failure to fetch it."""
        return url in self._entries

    def is_invalid(self, url: str) -> bool:
        """Return whether the document was gone, or broke a rule, when it was last fetched."""
        return url in self._entries and self._entries[url].is_invalid

    async def aclose(self) -> None:
        await cancel(self._under_way.values())

    async def _renew(self, url: str) -> None:
        await once(self._under_way, url, lambda: self._fetch(url))

    async def _fetch(self, url: str) -> None:
        entry = self._entries.get(url, _Entry())
        try:
            entry.value, fresh_time = await self.read(url)
        except NotFetched as exc:
            outcome = exc.outcome
            now = self.clock()
            entry.is_invalid = exc.is_invalid
            if exc.is_invalid:
                # `get_again` may have fetched a document that was still fresh.
                entry.value, entry.fresh_until = None, _LONG_AGO
            entry.paused_until = now + PAUSE
            # The event `…_refused` means that no usable document is left, even if the fetch has only failed.
            event = f"{self.kind}_refused" if entry.usable_value(now) is None else f"{self.kind}_not_renewed"
            log.warning(event, host=host_of(url), reason=str(exc))
        else:
            outcome = DocumentOutcome.OK
            entry.fresh_until, entry.paused_until = self.clock() + fresh_time, _LONG_AGO
            entry.is_invalid = False
        if self.on_outcome is not None:
            self.on_outcome(outcome)
        # The entry enters the cache only now, because `_drop_old` would delete an entry without an outcome.
        self._entries[url] = entry
        self._drop_old()

    def _drop_old(self) -> None:
        now = self.clock()
        for url, entry in list(self._entries.items()):
            is_paused = now < entry.paused_until
            if entry.usable_value(now) is None and not is_paused:
                del self._entries[url]
        while len(self._entries) > _MAX_ENTRIES:
            self._entries.popitem(last=False)
