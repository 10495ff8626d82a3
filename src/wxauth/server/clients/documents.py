"""Clients that nobody has registered, by the documents about them at hosts that the settings allow.

Their `client_id` is the URL of the document (draft-ietf-oauth-client-id-metadata-document). Documents are kept in the
memory of a process. One that cannot be fetched again is used for another day. The token endpoint needs no document:
what a person has approved has the client's name, and its redirect URI.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import httpx

from wxauth.errors import RateLimited
from wxauth.server.clients.clients import ID_TOKEN_ALG, check_uri, scheme_of_app
from wxauth.server.clients.models import Client
from wxauth.server.core.background import cancel, once
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.metrics import Counter
from wxauth.server.core.resources import BESIDE_RESOURCE, host_of
from wxauth.server.core.services import part
from wxauth.server.core.settings import Settings
from wxauth.server.limits.rate_limits import RateLimiter
from wxauth.server.outbound.connection import HttpAnswer
from wxauth.server.outbound.receivers import NOT_ALLOWED, USER_AGENT
from wxauth.server.outbound.transport import ANSWER
from wxauth.server.sessions.queries import HAS_SESSIONS
from wxauth.texts import clean_text, read_loosely

FETCH_SECONDS: Final = 4.0
MAX_DOCUMENT: Final = 10 * 1024
"""Bytes."""
KEPT_SHORTEST: Final = timedelta(minutes=5)
KEPT_LONGEST: Final = timedelta(days=1)
STALE_USED: Final = timedelta(days=1)
"""How long an expired document is used if it cannot be fetched again."""
PAUSE: Final = timedelta(minutes=1)
"""The pause before another fetch, after a refusal or a failure."""
NEW_OF_AN_ADDRESS: Final = "10/minute"
"""How many documents that have not been good yet are fetched for one address, or one IPv6 /48."""
NEW_OF_ALL: Final = "30/minute"
"""How many of them one process fetches, counted after those of the address: nobody alone can use them up."""
MAX_KEPT: Final = 1000
MAX_CLIENT_ID: Final = 512
_CLIENT_ID: Final = re.compile(r"https://([a-z0-9.:\[\]-]+)(/[A-Za-z0-9._~:/!$&'()*+,;=@%-]+)", re.ASCII)
_JSON: Final = re.compile(r"application/([!#$&^_.+a-z0-9-]+\+)?json", re.ASCII | re.IGNORECASE)
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=\"?([0-9]{1,9})\b", re.IGNORECASE)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)

log = get_logger()


class DocumentOutcome(StrEnum):
    """The outcome of fetching a document."""

    OK = "ok"
    FAILED = "failed"
    """No answer in time, no connection, or a status other than 200."""
    REFUSED = "refused"
    """The address, or anything in the answer."""


FETCHED: Final = Counter(
    "wxauth_client_documents",
    "Documents fetched about clients that nobody has registered, by outcome: ok, failed or refused.",
    "outcome",
    first=DocumentOutcome,
)


class NotFetched(Exception):
    """A document cannot be used: no longer, if it `is_gone`. The message is for the log, without what was fetched."""

    def __init__(self, outcome: DocumentOutcome, reason: str, *, is_gone: bool = False) -> None:
        super().__init__(reason)
        self.outcome, self.is_gone = outcome, is_gone or outcome is DocumentOutcome.REFUSED


@dataclass(slots=True)
class _Kept:
    """A document in the cache of a process, or its last failure."""

    client: Client | None = None
    """None: it has not been good yet, or is no longer."""
    fresh_until: datetime = _NEVER
    not_before: datetime = _NEVER
    """When it may be fetched again, after a failure."""

    def usable(self, now: datetime) -> Client | None:
        return self.client if now < self.fresh_until + STALE_USED else None

    def drop_future_times(self, now: datetime) -> None:
        """Drop times that were computed before the clock was set back, because they would be far too late."""
        self.fresh_until = self.fresh_until if self.fresh_until <= now + KEPT_LONGEST else _NEVER
        self.not_before = self.not_before if self.not_before <= now + PAUSE else _NEVER


def is_allowed(settings: Settings, client_id: str) -> bool:
    """Whether this is the URL of a document at a host that the settings allow."""
    found = _CLIENT_ID.fullmatch(client_id) if len(client_id) <= MAX_CLIENT_ID else None
    if found is None or found[1] not in settings.client_documents:
        return False
    return not {".", ".."} & set(found[2].lower().replace("%2e", ".").split("/"))


def known_client(settings: Settings, client_id: str) -> Client | None:
    """The client with this id, without its document; None if its host is not (or no longer) allowed."""
    return _client(client_id, host_of(client_id), []) if is_allowed(settings, client_id) else None


@part
class ClientDocuments:
    """Fetches and keeps documents. `transport` connects to allowed addresses only.

    `of_address` and `of_all` limit the documents that have not been good yet.
    """

    settings: Settings
    clock: Clock
    database: Database
    transport: httpx.AsyncBaseTransport
    of_address: RateLimiter
    of_all: RateLimiter
    patience: float = FETCH_SECONDS
    _kept: OrderedDict[str, _Kept] = field(default_factory=OrderedDict, init=False)
    """The document used last is at the end."""
    _under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False)

    async def client(self, client_id: str, *, ip: str | None) -> Client | None:
        """The client that a document describes; None if the document is refused, which is logged.

        Raises: RateLimited.
        """
        if not is_allowed(self.settings, client_id):
            reason = "its host is not in WXAUTH_CLIENT_DOCUMENTS, or the URL is not just https, host and path"
            log.warning("client_document_refused", host=host_of(client_id)[:253], reason=reason)
            return None
        now, kept = self.clock(), self._kept.get(client_id, _Kept())
        kept.drop_future_times(now)
        if client_id in self._kept:
            self._kept.move_to_end(client_id)
        if now >= max(kept.fresh_until, kept.not_before):
            if kept.usable(now) is None and client_id not in self._under_way:
                await self._admit(client_id, ip)
            await once(self._under_way, client_id, lambda: self._fetch(client_id))
        return self._kept.get(client_id, kept).usable(now)

    async def aclose(self) -> None:
        """Cancel the requests in progress."""
        await cancel(self._under_way.values())

    async def _admit(self, client_id: str, ip: str | None) -> None:
        """Count a document that has not been good yet. Raises: RateLimited."""
        try:
            await self.of_address.admit_address(ip)
            await self.of_all.admit("")
        except RateLimited:
            if not await self.database.value(HAS_SESSIONS, client_id=client_id):  # else good, for another process
                raise

    async def _fetch(self, client_id: str) -> None:
        """Fetch a document, and keep it or the failure."""
        kept = self._kept.get(client_id, _Kept())
        host, reason = host_of(client_id), None
        try:
            kept.client, lasts = await self._read(client_id)
        except NotFetched as exc:
            outcome, reason, now = exc.outcome, str(exc), self.clock()
            if exc.is_gone:
                kept.client = None
            kept.not_before = now + PAUSE
            event = "client_document_not_renewed" if kept.usable(now) else "client_document_refused"
            log.warning(event, host=host, reason=reason)
        else:
            outcome, kept.fresh_until, kept.not_before = DocumentOutcome.OK, self.clock() + lasts, _NEVER
        FETCHED.count(outcome)
        self._kept[client_id] = kept  # now: others that end meanwhile drop what has no outcome yet
        self._drop_old()

    def _drop_old(self) -> None:
        now = self.clock()
        for client_id in [each for each, kept in self._kept.items() if not (kept.usable(now) or now < kept.not_before)]:
            del self._kept[client_id]
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    async def _read(self, client_id: str) -> tuple[Client, timedelta]:
        """The client that a document describes, and for how long it is kept. Raises: NotFetched."""
        headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
        try:
            request = httpx.Request("GET", client_id, headers=headers, extensions={"max_body": MAX_DOCUMENT})
            async with asyncio.timeout(self.patience):
                response = await self.transport.handle_async_request(request)
        except (httpx.InvalidURL, UnicodeError):  # of a host in the settings that only looks like one
            raise NotFetched(DocumentOutcome.REFUSED, "its host is no name and no address") from None
        except TimeoutError:
            raise NotFetched(DocumentOutcome.FAILED, "no answer in time") from None
        except httpx.TransportError as exc:
            is_refused = isinstance(exc, httpx.RemoteProtocolError) or str(exc) == NOT_ALLOWED
            outcome = DocumentOutcome.REFUSED if is_refused else DocumentOutcome.FAILED
            raise NotFetched(outcome, str(exc)) from None
        answer: HttpAnswer = response.extensions[ANSWER]
        if answer.status != httpx.codes.OK:
            is_gone = answer.status in (httpx.codes.NOT_FOUND, httpx.codes.GONE)
            raise NotFetched(DocumentOutcome.FAILED, f"status {answer.status}", is_gone=is_gone)
        if answer.is_encoded or not _JSON.fullmatch((answer.content_type or "").partition(";")[0].strip()):
            raise NotFetched(DocumentOutcome.REFUSED, "the answer is no plain JSON")
        return client_in(client_id, answer.body), _lasts(answer.cache_control or "")


def client_in(client_id: str, body: bytes) -> Client:
    """The client that a document describes. Raises: NotFetched."""
    try:
        document = read_loosely(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise NotFetched(DocumentOutcome.REFUSED, "the document is no JSON object")
    name, uris = document.get("client_name"), document.get("redirect_uris")
    name = clean_text(name) if isinstance(name, str) else ""
    uris = uris if isinstance(uris, list) else []
    rules = {
        "client_id must be the URL itself": document.get("client_id") == client_id,
        "client_name must be 1 to 64 characters": 1 <= len(name) <= 64,
        "redirect_uris must be 1 to 20, https or on loopback": 1 <= len(uris) <= 20 and all(map(_is_uri, uris)),
        "token_endpoint_auth_method must be none": document.get("token_endpoint_auth_method", "none") == "none",
        "grant_types must have authorization_code": _has(document, "grant_types", "authorization_code"),
        "response_types must have code": _has(document, "response_types", "code"),
        "client_secret must be absent": "client_secret" not in document,
    }
    for rule, is_kept in rules.items():
        if not is_kept:
            raise NotFetched(DocumentOutcome.REFUSED, rule)
    return _client(client_id, name, uris)


def _client(client_id: str, title: str, redirect_uris: list[str]) -> Client:
    return Client(
        name=client_id,
        title=title,
        scopes=list(BESIDE_RESOURCE),
        is_public=True,
        redirect_uris=redirect_uris,
        link=True,
        id_token_alg=ID_TOKEN_ALG,
    )


def _is_uri(uri: object) -> bool:
    try:
        return isinstance(uri, str) and check_uri(uri) == uri and scheme_of_app(uri) is None
    except ValueError:
        return False


def _has(document: Mapping[str, Any], field: str, value: str) -> bool:
    values = document.get(field, [value])
    return isinstance(values, list) and value in values


def _lasts(cache_control: str) -> timedelta:
    """How long a document is kept, by its `Cache-Control` (RFC 9111, section 5.2.2)."""
    found = _MAX_AGE.search(cache_control)
    if found is None or re.search(r"\bno-(store|cache)\b", cache_control, re.IGNORECASE):
        return KEPT_SHORTEST
    return min(max(timedelta(seconds=int(found[1])), KEPT_SHORTEST), KEPT_LONGEST)
