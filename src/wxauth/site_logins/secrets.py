"""The scenes, page ids, authorization codes, user codes and cookies of logins to sites.

wxauth stores only the hashes of these secrets, except that a stored picture of a code (`scan_pictures`) contains the
scene.

A scene is the random part of a QR code or of a link to WeChat. It identifies the login that the phone can claim.

Page ids, the authorization codes of logins with WeChat's page, and the cookies of browsers' logins are derived from the
cookie that identifies the browser. Therefore, wxauth can derive the same secret again, for example if the browser
repeats a callback, or must return to its page. The form field that confirms a log-out is derived from the cookie of the
browser's login.

A user code, which texts for users call a login code, is typed on the phone. It has only 34 random bits, so its hash
needs a key. Without a key, an attacker with a copy of the database could find the code by trying all codes.
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

_SCENE_BYTES: Final = 16
_SCENE_LENGTH: Final = 22
"""The number of characters of `_SCENE_BYTES` in base64url without padding."""
SCENE: Final = re.compile(rf"[A-Za-z0-9_-]{{{_SCENE_LENGTH}}}", re.ASCII)
"""The form of a scene."""
PAGE_ID: Final = SCENE
"""The form of the id in a page's URLs, which `page_id_of` makes as long as a scene."""
NO_SUCH_PAGE: Final = "this browser doesn't show this page"

_USER_CODE_ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels, so that no words appear (RFC 8628, section 6.1)
_USER_CODE_LENGTH: Final = 8


def new_scene() -> str:
    """Return a new scene, which consists of 128 random bits, in characters that every scanner preserves."""
    return secrets.token_urlsafe(_SCENE_BYTES)


def scan_link(issuer: str, scene: str) -> str:
    """Return the URL that an ordinary QR code contains.

    For a device, it is the `verification_uri_complete` of RFC 8628.
    """
    return f"{_scan_link_prefix(issuer)}{scene}"


def scene_in(url: str, *, issuer: str) -> str | None:
    """Return the scene in a scan link of this service; None for any other URL."""
    prefix = _scan_link_prefix(issuer)
    if not url.startswith(prefix):
        return None
    scene = re.split(r"[?#]", url.removeprefix(prefix), maxsplit=1)[0]  # without a query and a fragment
    return scene if SCENE.fullmatch(scene) else None


def _scan_link_prefix(issuer: str) -> str:
    """Return the beginning of all scan links. If a browser opens one, `show_link_page` asks the user to use WeChat."""
    return f"{issuer}/d/"


def page_hashes(page_id: str, cookie: str) -> dict[str, bytes]:
    """Return the parameters with which `queries.BY_PAGE` finds the page with this id in the browser with this cookie.

    Raises: NotFound, if the browser has no cookie, or if the id is malformed.
    """
    if not cookie or not PAGE_ID.fullmatch(page_id):
        raise NotFound(NO_SUCH_PAGE)
    return {"page_hash": hash_of(page_id), "browser_hash": hash_of(cookie)}


def page_id_of(cookie: str, login_id: UUID) -> str:
    """Return the id in the URLs of a login's page.

    Only the page's browser has the cookie that the id is derived from.
    """
    return _derive(cookie, "request", str(login_id))[:_SCENE_LENGTH]


def authorization_code_of(cookie: str, state: str) -> str:
    """Return the authorization code of a login with WeChat's page.

    The code is derived from the browser's `cookie` and the `state`, so all callbacks of a browser with the same `state`
    get the same code.
    """
    return _derive(cookie, "code", state)


def login_cookie_of(cookie: str, proof_id: UUID) -> str:
    """Return the value for the cookie of a browser's login, derived from the browser's `cookie` and a proof.

    `proof_id` is the id of the login in `site_logins` that has proved who uses the browser. Each proof makes a new
    value. The same proof always makes the same value.
    """
    return _derive(cookie, "login", str(proof_id))


def log_out_field(login_cookie: str) -> str:
    """Return the value of the form field that confirms a log-out.

    The value is derived from `login_cookie`, the cookie of the browser's login. Therefore, only wxauth's page in this
    browser can contain the value.
    """
    return _derive(login_cookie, "log out", "")


def _derive(cookie: str, purpose: str, value: str) -> str:
    """Return a secret that only somebody with the cookie can derive.

    Each pair of `purpose` and `value` gives a different secret.
    """
    return base64url(hmac.digest(cookie.encode(), f"{purpose} {value}".encode(), "sha256")).decode()


class UserCodes:
    """The maker of user codes and of their hashes.

    The hash of a new code uses the first secret key. A typed code is compared with the hashes that use any of the
    secret keys.
    """

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        self._keys = [derive_key(key, "user-code") for key in secret_keys]

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
        """Return the hashes of a code, one for each secret key. `letters` is the code without its hyphen."""
        return [hmac.digest(key, letters.encode(), "sha256") for key in self._keys]
