"""Clients that are not registered, but described by documents at hosts that the settings allow.

Their `client_id` is the URL of the document (draft-ietf-oauth-client-id-metadata-document). At the token endpoint,
only the authentication is read from the document, because the user has approved everything else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final

import httpx

from wxauth.clients.assertions import (
    PRIVATE_KEY_JWT,
    SIGNING_ALGS,
    Assertion,
    ClientKeys,
    InvalidAssertion,
    has_private_keys,
)
from wxauth.clients.fetched import FETCH_SECONDS, DocumentCache, DocumentOutcome, NotFetched, fetch
from wxauth.clients.models import DEFAULT_ID_TOKEN_ALG, Client
from wxauth.clients.redirect_uris import check_uri, scheme_of_app
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Counter
from wxauth.core.services import part
from wxauth.errors import RateLimited
from wxauth.faulty_json import read_loosely
from wxauth.limits.queries import ASSERTIONS
from wxauth.limits.rate_limits import RateLimiter
from wxauth.sessions.queries import HAS_SESSIONS
from wxauth.settings.resources import SCOPES_BESIDE_RESOURCE
from wxauth.settings.settings import Settings
from wxauth.settings.urls import host_of, plain_url
from wxauth.texts import clean_text, is_title
from wxauth_guard.keys import InvalidKey

# An IPv6 /48 counts as one address. The limit is on documents without a usable copy, except of clients that have
# sessions.
NEW_DOCUMENTS_PER_ADDRESS: Final = "10/minute"
# This limit is checked after that of the address, so that no single address can use it up.
NEW_DOCUMENTS_PER_PROCESS: Final = "30/minute"
# The limit exists because each assertion adds a row that the database keeps for at least an hour.
ASSERTIONS_PER_CLIENT: Final = "50/second"
_MAX_CLIENT_ID_LENGTH: Final = 512
_MAX_REDIRECT_URIS: Final = 20  # not counting those that are not allowed
_MAX_LOGGED_HOST: Final = 253  # No DNS name is longer.

log = get_logger()

FETCHED: Final = Counter(
    "wxauth_client_documents",
    "Documents fetched about clients that nobody has registered, by outcome: ok, failed or refused.",
    "outcome",
    first=DocumentOutcome,
)


@dataclass(frozen=True, slots=True)
class ClientDocument:
    client: Client
    may_be_public: bool  # without an assertion
    keys: ClientKeys | None  # None if there are no usable keys, or if there is a URL, too
    keys_url: str | None  # None if there is no usable URL, or if there are keys, too
    algs: frozenset[str]


def is_allowed_url(settings: Settings, client_id: str) -> bool:
    """Return whether this client's id is the URL of a document at a host that the settings allow."""
    parts = _https_parts(client_id)
    if parts is None or parts["host"] not in settings.client_documents:
        return False
    # The draft requires a path, and forbids dot segments. wxauth also refuses a query, which the draft discourages.
    segments = parts["path"].lower().replace("%2e", ".").split("/")
    has_dot_segment = "." in segments or ".." in segments
    return parts["path"] not in ("", "/") and not has_dot_segment and not parts["query"]


def _https_parts(url: str) -> re.Match[str] | None:
    parts = plain_url(url) if len(url) <= _MAX_CLIENT_ID_LENGTH else None
    return parts if parts is not None and parts["scheme"] == "https" else None


@part
class ClientDocuments:
    """The part that fetches and caches clients' documents and keys, and checks assertions."""

    settings: Settings
    clock: Clock
    database: Database
    transport: httpx.AsyncBaseTransport
    new_documents_per_address: RateLimiter
    new_documents_per_process: RateLimiter
    assertions_per_client: RateLimiter
    patience: float = FETCH_SECONDS
    _documents: DocumentCache[ClientDocument] = field(init=False)  # by the client's id
    _keys: DocumentCache[ClientKeys] = field(init=False)  # by the `jwks_uri`

    def __post_init__(self) -> None:
        self._documents = DocumentCache("client_document", self.clock, self._read_document, on_outcome=FETCHED.count)
        self._keys = DocumentCache("client_keys", self.clock, self._read_keys)

    async def find(self, client_id: str, *, ip: str | None) -> ClientDocument | None:
        """Return the document of a client; None if wxauth cannot use the document. The log says why.

        `ip` is the address for which unknown documents are limited.

        Raises: RateLimited, if too many unknown documents were fetched; StorageUnavailable.
        """
        if not is_allowed_url(self.settings, client_id):
            reason = (
                "the URL's host isn't in WXAUTH_CLIENT_DOCUMENTS, or the URL has parts other than https, host and path"
            )
            log.warning("client_document_refused", host=host_of(client_id)[:_MAX_LOGGED_HOST], reason=reason)
            return None
        return await self._documents.get(client_id, admit=partial(self._admit, client_id, ip))

    def is_invalid(self, client_id: str) -> bool:
        """Return whether a document that `find` did not return was fetched, but is gone or breaks a rule."""
        return self._documents.is_invalid(client_id)

    async def has_sessions(self, client_id: str) -> bool:
        """Return whether this client has sessions, which shows that users have approved the client before."""
        return bool(await self.database.value(HAS_SESSIONS, client_id=client_id))

    async def authenticate(self, assertion: Assertion, *, ip: str | None) -> ClientDocument | None:
        """Return the document of the client that has signed an assertion; None if its keys cannot be fetched.

        Raises: InvalidAssertion, if the signature or the algorithm is wrong, if the client has no usable keys, or
            if the assertion was used before; RateLimited; StorageUnavailable.
        """
        # The keys are cached together with the document or, if the document only links to them, separately.
        keys_were_cached = self._documents.knows(assertion.client_id)
        document = await self.find(assertion.client_id, ip=ip)
        if document is None:
            return None
        if assertion.alg not in document.algs:
            raise InvalidAssertion("alg isn't the document's token_endpoint_auth_signing_alg")
        keys = document.keys
        if document.keys_url is not None:
            keys_were_cached = self._keys.knows(document.keys_url)
            keys = await self._keys.get(document.keys_url)
            if keys is None and not self._keys.is_invalid(document.keys_url):
                return None
        if not await self._is_signed(assertion, document, keys, were_cached=keys_were_cached):
            raise InvalidAssertion("the assertion isn't signed with a key of the document")
        await self.assertions_per_client.admit(assertion.client_id)
        try:  # the limit of `ASSERTIONS` is one use of each `jti`
            await ASSERTIONS.count(self.database, assertion.client_id, assertion.jti, now=self.clock())
        except RateLimited:
            raise InvalidAssertion(
                "the assertion has already been used: each assertion must have its own jti"
            ) from None
        return document

    async def aclose(self) -> None:
        await self._documents.aclose()
        await self._keys.aclose()

    async def _is_signed(
        self, assertion: Assertion, document: ClientDocument, keys: ClientKeys | None, *, were_cached: bool
    ) -> bool:
        key = None if keys is None else keys.find(assertion.alg, assertion.kid)
        if key is not None and assertion.is_signed_by(key):
            return True
        # Keys that have just been fetched are current. If the assertion names a known key, its signature is wrong, and
        # a wrong signature must not cause a fetch.
        names_known_key = key is not None and assertion.kid is not None
        if not were_cached or names_known_key:
            return False
        keys = await self._fetch_keys_again(assertion.client_id, document)  # The cached keys may be outdated.
        key = None if keys is None else keys.find(assertion.alg, assertion.kid)
        return key is not None and assertion.is_signed_by(key)

    async def _fetch_keys_again(self, client_id: str, document: ClientDocument) -> ClientKeys | None:
        if document.keys_url is not None:
            return await self._keys.get_again(document.keys_url)
        fetched_document = await self._documents.get_again(client_id)
        return None if fetched_document is None else fetched_document.keys

    async def _admit(self, client_id: str, ip: str | None) -> None:
        """Count a fetch of a document of which this process has no usable copy."""
        try:
            await self.new_documents_per_address.admit_address(ip)
            await self.new_documents_per_process.admit("")  # one name, because this limit counts all addresses together
        except RateLimited:
            if not await self.has_sessions(client_id):  # sessions show that the document has been valid before
                raise

    async def _fetch(self, url: str) -> tuple[bytes, timedelta]:
        is_direct = not self.settings.receivers_proxy_documents
        return await fetch(self.transport, url, self.patience, is_direct=is_direct)

    async def _read_document(self, client_id: str) -> tuple[ClientDocument, timedelta]:
        body, fresh_time = await self._fetch(client_id)
        return document_in(client_id, body), fresh_time

    async def _read_keys(self, url: str) -> tuple[ClientKeys, timedelta]:
        body, fresh_time = await self._fetch(url)
        try:
            return ClientKeys.read(read_loosely(body)), fresh_time
        except ValueError:  # including InvalidKey
            raise NotFetched(DocumentOutcome.REFUSED, "the keys aren't a JWK set") from None


def document_in(client_id: str, body: bytes) -> ClientDocument:
    """Return the content of a document. Leave out redirect URIs that are not allowed. Raises: NotFetched."""
    document = _json_object_in(body)
    name, uris = document.get("client_name"), document.get("redirect_uris")
    title = clean_text(name) if isinstance(name, str) else ""
    redirect_uris = [uri for uri in uris if _is_allowed_redirect(uri)] if isinstance(uris, list) else []
    methods = _methods(document)
    keys, keys_url = _keys_in(document)
    has_keys = keys is not None or keys_url is not None
    has_usable_method = "none" in methods or (PRIVATE_KEY_JWT in methods and has_keys)
    _check_rules(document, client_id, title, redirect_uris, has_usable_method=has_usable_method)
    alg = document.get("token_endpoint_auth_signing_alg")  # if absent, the client may use any algorithm
    return ClientDocument(
        client=client_at(client_id, title, redirect_uris),
        may_be_public="none" in methods,
        keys=keys,
        keys_url=keys_url,
        algs=frozenset(each for each in SIGNING_ALGS if alg is None or alg == each),
    )


def _json_object_in(body: bytes) -> Mapping[str, Any]:
    try:
        document = read_loosely(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise NotFetched(DocumentOutcome.REFUSED, "the document isn't a JSON object")
    return document


def _check_rules(
    document: Mapping[str, Any], client_id: str, title: str, redirect_uris: Sequence[str], *, has_usable_method: bool
) -> None:
    rules = {
        "client_id must be the document's own URL": document.get("client_id") == client_id,
        "client_name must be 1 to 64 characters": is_title(title),
        f"redirect_uris must contain 1 to {_MAX_REDIRECT_URIS} URIs, which use https or a loopback address": (
            1 <= len(redirect_uris) <= _MAX_REDIRECT_URIS
        ),
        "token_endpoint_auth_method must be none, or private_key_jwt with a jwks_uri or jwks": has_usable_method,
        "grant_types must contain authorization_code": _list_contains(document, "grant_types", "authorization_code"),
        "response_types must contain code": _list_contains(document, "response_types", "code"),
        "client_secret must be absent": "client_secret" not in document,
        "jwks must contain only public keys": not has_private_keys(document.get("jwks")),
    }
    for rule, is_followed in rules.items():
        if not is_followed:
            raise NotFetched(DocumentOutcome.REFUSED, rule)


def _methods(document: Mapping[str, Any]) -> frozenset[str]:
    method, methods = document.get("token_endpoint_auth_method"), document.get("token_endpoint_auth_methods_supported")
    if method is None and methods is None:
        return frozenset({"none"})
    # RFC 7591 defines only the first member. The document of ChatGPT lists further methods in the second.
    named = [method, *(methods if isinstance(methods, list) else ())]
    return frozenset(each for each in named if isinstance(each, str))


def _keys_in(document: Mapping[str, Any]) -> tuple[ClientKeys | None, str | None]:
    jwks, url = document.get("jwks"), document.get("jwks_uri")
    if jwks is not None and url is not None:  # only one of them is allowed (RFC 7591, section 2)
        return None, None
    if isinstance(url, str) and _https_parts(url):
        return None, url
    try:
        keys = ClientKeys.read(jwks)
    except InvalidKey:
        return None, None
    return (keys if keys.keys else None), None


def client_at(client_id: str, title: str = "", redirect_uris: Sequence[str] = ()) -> Client:
    """Return the client whose document has this URL. It counts as public even if it signs assertions.

    Nobody can set `link` for this client, so it is always on, for logins from a phone's browser.
    """
    return Client(
        name=client_id,
        title=title,
        scopes=list(SCOPES_BESIDE_RESOURCE),
        is_public=True,
        redirect_uris=list(redirect_uris),
        link=True,
        id_token_alg=DEFAULT_ID_TOKEN_ALG,
    )


def _is_allowed_redirect(uri: object) -> bool:
    try:
        return isinstance(uri, str) and scheme_of_app(check_uri(uri)) is None
    except ValueError:
        return False


def _list_contains(document: Mapping[str, Any], name: str, value: str) -> bool:
    values = document.get(name, [value])  # `value` is the list's default (RFC 7591, section 2)
    return isinstance(values, list) and value in values
