"""The secrets that are stored as hashes: scenes, codes and cookies.

A user code has only 34 random bits, so its hash is keyed. Otherwise, an attacker with the database could find the code
by trying all of them.
"""

import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from wxauth.core.sealing import derive_key
from wxauth.errors import NotFound
from wxauth.texts import hash_of
from wxauth.tokens import base64url

SCENE: Final = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)
"""The form of a scene, and of the id in a page's URLs."""
NO_SUCH_PAGE: Final = "this browser doesn't show this page"

_USER_CODE_ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels, so that no words appear (RFC 8628, section 6.1)
_USER_CODE_LENGTH: Final = 8
_SCENE_BYTES: Final = 16
_SCENE_LENGTH: Final = 22


def new_scene() -> str:
    """Return 128 random bits, in characters that every scanner preserves."""
    return secrets.token_urlsafe(_SCENE_BYTES)


def page_hashes(page_id: str, cookie: str) -> dict[str, bytes]:
    """Return the hashes that find the page with this id of the browser with this cookie. Raises: NotFound."""
    if not cookie or not SCENE.fullmatch(page_id):
        raise NotFound(NO_SUCH_PAGE)
    return {"page_hash": hash_of(page_id), "browser_hash": hash_of(cookie)}


def page_id_of(cookie: str, request_id: UUID) -> str:
    """Return the id in the URLs of a request's page. It can be derived only from the cookie of the page's browser."""
    return _derived(cookie, "request", str(request_id))[:_SCENE_LENGTH]


def code_of(cookie: str, state: str) -> str:
    """Return the authorization code of a login with WeChat's page.

    It is equal for each callback of a browser with one state.
    """
    return _derived(cookie, "code", state)


def login_of(cookie: str, grant_id: UUID) -> str:
    """Return the cookie of a browser's login that a grant proves.

    It is new for each proof, and equal if one proof is read twice.
    """
    return _derived(cookie, "login", str(grant_id))


def log_out_field(login: str) -> str:
    """Return the form field with which our own page confirms that the user of a browser's login logs out."""
    return _derived(login, "log out", "")


def _derived(cookie: str, what: str, value: str) -> str:
    return base64url(hmac.digest(cookie.encode(), f"{what} {value}".encode(), "sha256")).decode()


class UserCodes:
    """Makes and recognizes user codes.

    New codes are hashed with the first secret key, and codes of any key are found.
    """

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        self._keys = [derive_key(key, "user-code") for key in secret_keys]

    def new(self) -> tuple[str, bytes]:
        """Return a code in the form to show, and its hash."""
        letters = "".join(secrets.choice(_USER_CODE_ALPHABET) for _ in range(_USER_CODE_LENGTH))
        return f"{letters[:4]}-{letters[4:]}", self._hashes(letters)[0]

    def hashes(self, typed: str) -> Sequence[bytes]:
        """Return the hashes under which a typed code can be stored; empty if the text cannot be a code."""
        letters = re.sub(r"[\s\-_.]", "", typed).upper()
        is_one = len(letters) == _USER_CODE_LENGTH and set(letters) <= set(_USER_CODE_ALPHABET)
        return self._hashes(letters) if is_one else []

    def _hashes(self, letters: str) -> list[bytes]:
        return [hmac.digest(key, letters.encode(), "sha256") for key in self._keys]
