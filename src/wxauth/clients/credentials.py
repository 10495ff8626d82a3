"""The credentials of services and sites: how a request sends them, and the check of the secret."""

from base64 import b64decode
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from typing import Final, TypeVar
from urllib.parse import unquote

from starlette.requests import Request

from wxauth.clients.clients import Credentials
from wxauth.clients.models import ClientWithSecrets
from wxauth.clients.queries import ServiceClient
from wxauth.clients.rules import is_client_name
from wxauth.core.logs import get_logger
from wxauth.errors import InvalidClient
from wxauth.random_secrets import SECRET_CHARACTERS, hash_of
from wxauth_guard.bearer import single_authorization

_NO_HASH: Final = bytes(sha256().digest_size)  # compared with a sent secret if no hash is stored; no secret has it
log = get_logger()
AnyStored = TypeVar("AnyStored", ServiceClient, ClientWithSecrets)


def basic_credentials(request: Request) -> Credentials:
    """Return the name and the secret from HTTP Basic (RFC 7617), percent-decoded (RFC 6749, section 2.3.1)."""
    scheme, _, encoded = single_authorization(*request.headers.getlist("authorization")).partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient("send the service client's name and secret with HTTP Basic")
    try:
        name, colon, secret = b64decode(encoded.strip(" "), validate=True).decode().partition(":")
    except ValueError:
        raise InvalidClient("the credentials after 'Basic' aren't base64-encoded UTF-8") from None
    if not colon:
        raise InvalidClient("there is no colon between the name and the secret")
    return Credentials(unquote(name), unquote(secret))


def check_secret(credentials: Credentials, stored: AnyStored | None, *, now: datetime) -> AnyStored:
    """Return `stored` if the credentials contain its current secret, or its previous secret if that still works.

    For an unknown name, and for a client without a secret, it takes the same steps as for a wrong secret. Otherwise,
    its duration would reveal which names exist, and which clients have a secret.

    Raises: InvalidClient, if the name or the secret is wrong.
    """
    current_hash = None if stored is None else stored.secret_hash
    former_hash = None if stored is None else stored.former_secret_hash
    former_until = None if stored is None else stored.former_secret_until
    sent_hash = hash_of(credentials.client_secret)
    is_current = compare_digest(sent_hash, current_hash or _NO_HASH)
    is_former = compare_digest(sent_hash, former_hash or _NO_HASH)
    former_works = is_former and former_until is not None and now < former_until
    if stored is None or not (is_current or former_works):
        log.warning(
            "client_refused",
            client_id=credentials.client_id if is_client_name(credentials.client_id) else None,
            received=f"a secret of {len(credentials.client_secret)} characters",
            registered=_describe_registered_secret(stored, is_former=is_former),
            what_to_change="the client's own setting; 'wxauth clients secret NAME' prints a new secret",
        )
        raise InvalidClient("the service client's name or secret is wrong")
    return stored


def _describe_registered_secret(stored: ServiceClient | ClientWithSecrets | None, *, is_former: bool) -> str:
    if stored is None:
        return "no client has this name"
    if stored.secret_hash is None:
        return "a public client, which has no secret"
    if is_former:
        return "a newer secret; this one has ended"
    return f"another secret, of {SECRET_CHARACTERS} characters"
