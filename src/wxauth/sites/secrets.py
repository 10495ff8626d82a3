"""The scenes, page ids, authorization codes, user codes and cookies of logins to sites.

wxauth stores only their hashes, except that a stored picture contains the scene. A scene is the random part of a QR
code or of a link to WeChat. wxauth derives page ids, some authorization codes and the cookie of a login from the
browser's cookie, so that it can derive them again, for example if the browser repeats a callback.
"""

import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from wxauth.core.sealing import derive_key
from wxauth.errors import NotFound
from wxauth.random_secrets import hash_of
from wxauth.tokens import base64url

# In an ordinary QR code, a scene follows. Without a scene, this is the page that the users of devices open.
QR_CODE_PATH: Final = "/d"
_SCENE_BYTES: Final = 16
_SCENE_LENGTH: Final = 22  # `_SCENE_BYTES` in base64url without padding
SCENE: Final = re.compile(rf"[A-Za-z0-9_-]{{{_SCENE_LENGTH}}}")
PAGE_ID: Final = SCENE  # `page_id_of` makes it as long as a scene.
UNKNOWN_PAGE: Final = "this browser doesn't show this page"

_USER_CODE_ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels, so that no words appear (RFC 8628, section 6.1)
_USER_CODE_LENGTH: Final = 8


def new_scene() -> str:
    """Return a new scene of 128 random bits for a link, in characters that every scanner preserves."""
    return secrets.token_urlsafe(_SCENE_BYTES)


def qr_code_url(issuer: str, scene: str) -> str:
    """Return the URL in an ordinary QR code, which is also the `verification_uri_complete` of RFC 8628."""
    return f"{issuer}{QR_CODE_PATH}/{scene}"


def scene_in(url: str, *, issuer: str) -> str | None:
    """Return the scene in the URL of a QR code of this service; None for any other URL."""
    prefix = qr_code_url(issuer, "")
    if not url.startswith(prefix):
        return None
    scene = re.split(r"[?#]", url.removeprefix(prefix), maxsplit=1)[0]  # without a query and a fragment
    return scene if SCENE.fullmatch(scene) else None


def page_hashes(page_id: str, cookie: str) -> dict[str, bytes]:
    """Return the parameters with which `queries.BY_PAGE` finds the page with this id in the browser with this cookie.

    Raises: NotFound, if the browser has no cookie, or if the id is malformed.
    """
    if not cookie or not PAGE_ID.fullmatch(page_id):
        raise NotFound(UNKNOWN_PAGE)
    return {"page_hash": hash_of(page_id), "browser_hash": hash_of(cookie)}


def page_id_of(cookie: str, login_id: UUID) -> str:
    """Return the id in the URLs of a login's page."""
    return _derive(cookie, "request", str(login_id))[:_SCENE_LENGTH]


def authorization_code_of(cookie: str, state: str) -> str:
    """Return the code of a login with WeChat's page, which is the same for all callbacks with this `state`."""
    return _derive(cookie, "code", state)


def login_cookie_of(cookie: str, proof_id: UUID) -> str:
    """Return the cookie of a browser's login, which is the same for the same proof."""
    return _derive(cookie, "login", str(proof_id))


def show_code_field(cookie: str, scene: str) -> str:
    """Return the form field that shows a device's QR code. Only wxauth's page in this browser can contain it."""
    return _derive(cookie, "show code", scene)


def log_out_field(login_cookie: str) -> str:
    """Return the form field that confirms a log-out. Only wxauth's page in this browser can contain it."""
    return _derive(login_cookie, "log out", "")


def _derive(cookie: str, purpose: str, value: str) -> str:
    return base64url(hmac.digest(cookie.encode(), f"{purpose} {value}".encode(), "sha256")).decode()


class UserCodes:
    """The maker of user codes, which texts for users call login codes, of their hashes, and of the scenes of QR codes.

    New hashes use the first secret key. Typed codes are compared with the hashes of all keys.
    """

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        # A code has only 34 random bits. Without a key, anyone who copies the database could try all codes.
        self._keys = [derive_key(key, "user-code") for key in secret_keys]
        self._scene_keys = [derive_key(key, "scene") for key in secret_keys]

    def scenes(self, login_id: UUID) -> Sequence[str]:
        """Return the scenes that a login's QR code can have. The first one is for a new login.

        They are derived, so that a typed user code leads to the scene, of which wxauth stores only the hash.
        """
        digests = (hmac.digest(key, login_id.bytes, "sha256") for key in self._scene_keys)
        return [base64url(digest[:_SCENE_BYTES]).decode() for digest in digests]

    def new(self) -> tuple[str, bytes]:
        """Return a new user code, formatted for the user, and its hash."""
        letters = "".join(secrets.choice(_USER_CODE_ALPHABET) for _ in range(_USER_CODE_LENGTH))
        half = _USER_CODE_LENGTH // 2
        return f"{letters[:half]}-{letters[half:]}", self._hashes_of(letters)[0]

    def hashes(self, typed: str) -> Sequence[bytes]:
        """Return the hashes that a typed user code can have; an empty list if the text cannot be a user code."""
        letters = re.sub(r"[\s\-_.]", "", typed).upper()  # without the separators that users type
        can_be_code = len(letters) == _USER_CODE_LENGTH and set(letters) <= set(_USER_CODE_ALPHABET)
        return self._hashes_of(letters) if can_be_code else []

    def _hashes_of(self, letters: str) -> list[bytes]:
        return [hmac.digest(key, letters.encode(), "sha256") for key in self._keys]
