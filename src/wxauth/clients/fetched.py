"""The JSON documents that third parties publish about their clients. Each process fetches and caches them.

The documents are the metadata of clients, and the sets of their keys.

If a process cannot fetch a document again, it uses the cached document for up to another day. But if the document is
gone or breaks a rule, the process no longer uses it.
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

from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.core.tasks import cancel, once
from wxauth.outbound.connection import HttpAnswer
from wxauth.outbound.receivers import ADDRESS_NOT_ALLOWED, USER_AGENT
from wxauth.outbound.transport import ANSWER
from wxauth.settings.http_urls import host_of

FETCH_SECONDS: Final = 4.0
"""The time limit, in seconds, of a fetch."""
MAX_DOCUMENT: Final = 10 * 1024
"""The maximum number of bytes of a document."""
MIN_FRESH: Final = timedelta(minutes=5)
"""The shortest time for which a document is cached, whatever its `Cache-Control` says."""
MAX_FRESH: Final = timedelta(days=1)
"""The longest time for which a document is cached before it is fetched again."""
MAX_STALE: Final = timedelta(days=1)
"""The time for which a process uses an expired document if it cannot fetch the document again."""
PAUSE: Final = timedelta(minutes=1)
"""The pause after a refused or failed fetch, and between two fetches of a document by `get_again`."""
MAX_ENTRIES: Final = 1000
"""The largest number of documents and failures in one cache."""
_JSON: Final = re.compile(r"application/([!#$&^_.+a-z0-9-]+\+)?json", re.ASCII | re.IGNORECASE)
"""The pattern of a media type of JSON, for example `application/json` or `application/jwk-set+json`."""
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=\"?([0-9]{1,9})\b", re.IGNORECASE)
"""The pattern of `max-age` in a `Cache-Control`. The group is the number of seconds."""
_NOT_CACHEABLE: Final = re.compile(r"\bno-(store|cache)\b", re.IGNORECASE)
"""The pattern of the directives in a `Cache-Control` that forbid caching, or reuse without another request."""
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
"""A time in the past, which stands for a limit that does not apply."""

log = get_logger()
Document = TypeVar("Document")


class DocumentOutcome(StrEnum):
    """The outcome of fetching a document."""

    OK = "ok"
    FAILED = "failed"
    """There was no connection or no response in time, or the response had a status other than 200."""
    REFUSED = "refused"
    """The address is not allowed, or the response breaks a rule."""


class NotFetched(Exception):
    """The error for a fetch without a usable document. The message is for the log, and does not quote the response.

    If `is_invalid`, the document no longer exists, breaks a rule, or has an address that is not allowed. Then a cached
    copy is not usable either.
    """

    def __init__(self, outcome: DocumentOutcome, reason: str, *, is_invalid: bool = False) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.is_invalid = is_invalid or outcome is DocumentOutcome.REFUSED


async def fetch(transport: httpx.AsyncBaseTransport, url: str, patience: float) -> tuple[bytes, timedelta]:
    """Return the bytes of the JSON at a URL, and the time for which to cache them. `patience` is in seconds.

    Raises: NotFetched.
    """
    headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
    try:
        request = httpx.Request("GET", url, headers=headers, extensions={"max_body": MAX_DOCUMENT})
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


def _fresh_time(cache_control: str) -> timedelta:
    """Return the time for which to cache a document with this `Cache-Control` (RFC 9111, section 5.2.2).

    The time is `max-age`, but at least `MIN_FRESH` and at most `MAX_FRESH`. Without `max-age`, or if the document may
    not be cached, the time is `MIN_FRESH`.
    """
    max_age = _MAX_AGE.search(cache_control)
    if max_age is None or _NOT_CACHEABLE.search(cache_control):
        return MIN_FRESH
    return min(max(timedelta(seconds=int(max_age[1])), MIN_FRESH), MAX_FRESH)


@dataclass(slots=True)
class _Entry(Generic[Document]):
    """A document in the cache of a process, or the last failure to fetch it."""

    value: Document | None = None
    """The document; None if no valid document has been fetched yet, or if the document is gone or breaks a rule."""
    fresh_until: datetime = _LONG_AGO
    """The time until which the document is used without another fetch."""
    paused_until: datetime = _LONG_AGO
    """The end of the pause after a failed or refused fetch, in which there is no fetch."""
    again_paused_until: datetime = _LONG_AGO
    """The end of the pause after a fetch by `get_again`, in which `get_again` does not fetch."""
    is_invalid: bool = False
    """Whether the last fetch has shown that the document is gone or breaks a rule."""

    def usable_value(self, now: datetime) -> Document | None:
        """Return the document if it is fresh, or has expired less than `MAX_STALE` ago; otherwise None."""
        return self.value if now < self.fresh_until + MAX_STALE else None

    def drop_future_times(self, now: datetime) -> None:
        """Drop times that are too far in the future, because they were computed before the clock was set back."""
        if self.fresh_until > now + MAX_FRESH:
            self.fresh_until = _LONG_AGO
        if self.paused_until > now + PAUSE:
            self.paused_until = _LONG_AGO
        if self.again_paused_until > now + PAUSE:
            self.again_paused_until = _LONG_AGO


@dataclass(slots=True)
class DocumentCache(Generic[Document]):
    """A cache that fetches documents of one kind, and finds them by URL.

    Args:
        kind: The name of the kind, with which the names of log events begin, for example `client_document`.
        read: The function that fetches and parses a document. It returns the document and the time for which to cache
            it, or raises NotFetched.
        on_outcome: The function that receives the outcome of each fetch; None if the outcomes are not counted.
    """

    kind: str
    clock: Clock
    read: Callable[[str], Awaitable[tuple[Document, timedelta]]]
    on_outcome: Callable[[DocumentOutcome], None] | None = None
    _entries: OrderedDict[str, _Entry[Document]] = field(default_factory=OrderedDict)
    """The entries by URL. The most recently used entry is at the end."""
    _under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """The tasks of the fetches in progress, by URL."""

    async def get(self, url: str, *, admit: Callable[[], Awaitable[None]] | None = None) -> Document | None:
        """Return the document at a URL; None if it is not usable. If a fetch fails, log why.

        Call `admit` before a fetch if no usable document is cached, and no other caller is fetching the document.
        If `admit` raises an exception, this method raises it too, and does not fetch the document.
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
        """Fetch a cached document again even if it is fresh, at most once per `PAUSE`, and return the document.

        Return None if the last such fetch, or the last failed fetch, of this URL was less than `PAUSE` ago. Also return
        None if the document is not usable.
        """
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
        """Cancel the requests in progress."""
        await cancel(self._under_way.values())

    async def _renew(self, url: str) -> None:
        """Fetch a document. If another request is fetching it already, wait for that fetch."""
        await once(self._under_way, url, lambda: self._fetch(url))

    async def _fetch(self, url: str) -> None:
        """Fetch a document, and cache the document or the failure."""
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
        """Drop the entries that neither contain a usable document nor delay a fetch.

        If more than `MAX_ENTRIES` remain, also drop the least recently used ones.
        """
        now = self.clock()
        for url, entry in list(self._entries.items()):
            is_paused = now < entry.paused_until
            if entry.usable_value(now) is None and not is_paused:
                del self._entries[url]
        while len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)
