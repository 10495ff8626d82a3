"""Access tokens for the tests of a service with a guard. Tests need no running wxauth, no network and no waiting.

For example, a test of a route with a guard contains these lines:

    issuer = TestIssuer()
    app.dependency_overrides[guard] = issuer.guard()  # `guard` is the dependency of the routes
    response = await client.get("/orders", headers=issuer.headers(roles=["clerk"]))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from wxauth_guard.claims import ALGORITHM, TOKEN_TYPE, Principal, is_document_url
from wxauth_guard.errors import SessionRevoked, VerificationUnavailable
from wxauth_guard.json_texts import base64url, to_json
from wxauth_guard.keys import VerificationKey
from wxauth_guard.names import BearerGuard

USER_ID: Final = UUID("01900000-0000-7000-8000-000000000001")


class TestKey:
    """An ES256 key that signs access tokens. Guards can use it as their only key."""

    __test__ = False  # otherwise pytest would collect it, because its name starts with Test

    def __init__(self) -> None:
        self.private_key = ec.generate_private_key(ec.SECP256R1())
        self.kid = uuid4().hex
        point = self.private_key.public_key().public_numbers()
        self.public_jwk = {
            "kty": "EC",
            "crv": "P-256",
            "x": base64url(point.x.to_bytes(32, "big")),
            "y": base64url(point.y.to_bytes(32, "big")),
            "alg": ALGORITHM,
            "use": "sig",
            "kid": self.kid,
        }
        self.verification_key = VerificationKey.from_jwk(self.public_jwk)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return an access token with these claims."""
        header = {"alg": ALGORITHM, "kid": self.kid, "typ": TOKEN_TYPE}
        signed = f"{base64url(to_json(header))}.{base64url(to_json(dict(claims)))}"
        return f"{signed}.{base64url(self.signature_of(signed.encode()))}"

    def signature_of(self, signed: bytes) -> bytes:
        """Return the ES256 signature of these bytes."""
        r, s = decode_dss_signature(self.private_key.sign(signed, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    async def find(self, kid: str) -> VerificationKey | None:
        """Return this key if it has this id, and None otherwise."""
        return self.find_sync(kid)

    def find_sync(self, kid: str) -> VerificationKey | None:
        """Return this key if it has this id, and None otherwise."""
        return self.verification_key if kid == self.kid else None


class _TestAuthority:
    def __init__(self) -> None:
        self.banned: set[UUID] = set()
        self.ended: set[UUID] = set()
        self.roles: dict[UUID, frozenset[str]] = {}
        self.unreachable_blocks = 0  # how many blocks of `TestIssuer.unreachable` are running

    async def ask(self, token: str, principal: Principal, query: str) -> frozenset[str]:
        return self.ask_sync(token, principal, query)

    def ask_sync(self, _token: str, principal: Principal, _query: str) -> frozenset[str]:
        if self.unreachable_blocks:
            raise VerificationUnavailable("wxauth is unreachable in this test", is_unreachable=True)
        if principal.id in self.banned or principal.session_id in self.ended:
            raise SessionRevoked("the session has ended")
        return self.roles.get(principal.id, principal.roles)


class TestIssuer:
    """An issuer of access tokens like wxauth's, with its own key. It also creates guards that accept these tokens.

    Args:
        issuer: The `iss` of the tokens. No request is sent to this URL.
        audience: The `aud` of the tokens.
        app_id: The default app of the tokens.
        clock: A function that returns the time, in epoch seconds, for tokens and guards. To make a token expire, a test
            changes this time.
    """

    __test__ = False  # otherwise pytest would collect it, because its name starts with Test

    def __init__(
        self,
        issuer: str = "https://auth.test",
        audience: str = "wxauth",
        app_id: str = "wxtest",
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self.app_id = app_id
        self._clock = clock
        self.key = TestKey()
        self._authority = _TestAuthority()

    def token(
        self,
        *,
        user_id: UUID | str = USER_ID,
        roles: Sequence[str] = (),
        app_id: str | None = None,
        openid: str | None = None,
        session_id: UUID | str | None = None,
        expires_in: int = 900,
        scope: str | Iterable[str] | None = None,
        client_id: str | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """Return an access token. By default, the openid and the session are derived from the user and the app.

        Args:
            user_id: The UUID of the user.
            roles: If empty, the token has no claim `roles`.
            app_id: By default, the app of this issuer.
            openid: The user's openid in the app.
            session_id: The UUID of the session, as in the claim `sid`.
            expires_in: The seconds until the token expires. Guards allow 30 s of clock skew, so they refuse a token
                with -31, and accept a token with -29.
            scope: The scopes granted to a website or another client, as a list or separated by spaces. With a scope,
                the token has the claims of a website's token, even without `client_id`.
            client_id: The name of a website, or the URL of a client's metadata document. With such a URL, the token has
                neither an app_id nor an openid nor roles. By default, the token is from a login in the app.
            claims: Claims to replace or add. A claim that is None is removed.
        """
        user = UUID(str(user_id))
        app = app_id or self.app_id
        session = UUID(str(session_id or uuid5(user, app)))
        now = int(self._clock())
        scope_claim = scope if isinstance(scope, str) else " ".join(scope or ())
        payload: dict[str, Any] = {
            "iss": self.issuer,
            "sub": str(user),
            "aud": self.audience,
            "exp": now + expires_in,
            "iat": now,
            "jti": uuid4().hex,
            "client_id": client_id or app,
            "sid": str(session),
        }
        if client_id is not None and is_document_url(client_id):
            if roles or app_id or openid:
                raise ValueError("the token of a client with a metadata document has no roles, app_id or openid")
            payload |= {"scope": scope_claim, "auth_time": now}
        else:
            payload["openid"] = openid or f"openid-{uuid5(user, app).hex[:21]}"  # 28 characters, like WeChat's openids
            if roles:
                payload["roles"] = list(roles)
            if client_id is not None or scope is not None:  # a website's token, which also names the openid's app
                payload |= {"scope": scope_claim, "app_id": app}
        payload |= claims or {}
        return self.key.sign({name: value for name, value in payload.items() if value is not None})

    def headers(self, **fields: Any) -> dict[str, str]:
        """Return the `Authorization` header with a token. The arguments are those of `token`."""
        return {"Authorization": f"Bearer {self.token(**fields)}"}

    def ban(self, user_id: UUID | str) -> None:
        """Let `guard.current` refuse the user's tokens, as after a ban."""
        self._authority.banned.add(UUID(str(user_id)))

    def end_session(self, session_id: UUID | str) -> None:
        """Let `guard.current` refuse the tokens of this session (their claim `sid`), as after a logout."""
        self._authority.ended.add(UUID(str(session_id)))

    def set_roles(self, user_id: UUID | str, roles: Iterable[str]) -> None:
        """Set the roles that `guard.current` finds, by default those in the token."""
        self._authority.roles[UUID(str(user_id))] = frozenset([roles] if isinstance(roles, str) else roles)

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Within the block, let `guard.current` behave as while wxauth is unreachable."""
        self._authority.unreachable_blocks += 1
        try:
            yield
        finally:
            self._authority.unreachable_blocks -= 1

    def forget(self) -> None:
        """Forget all bans, ended sessions and roles, as the fixture `wxauth_issuer` does after each test."""
        self._authority.banned.clear()
        self._authority.ended.clear()
        self._authority.roles.clear()

    def guard(self, *, scopes: Iterable[str] = (), websites: bool = False, or_offline: bool = False) -> BearerGuard:
        """Return a guard that accepts this issuer's tokens, for `app.dependency_overrides[...]` or a test's own app.

        If this guard overrides another guard, it also checks the tokens for the other guard's `current`, and for the
        dependencies that its `require_role` and `requires` have returned. The method `optional` of the other guard is a
        dependency of its own, which needs an override of its own, for example with `optional` of this guard.
        """
        guard = BearerGuard(
            self.issuer,
            self.audience,
            scopes=scopes,
            websites=websites,
            or_offline=or_offline,
            keys=self.key,
            clock=self._clock,
        )
        guard._authority = self._authority
        return guard

    @contextmanager
    def trusted_by(self, guard: BearerGuard) -> Iterator[None]:
        """Within the block, make an existing guard accept the tokens of this issuer, and no others.

        Use this method for guards that `dependency_overrides` cannot replace, for example guards in ASGI middleware, or
        guards that code calls directly. It also affects `guard.current`, and the guards that `requires` has returned.
        """
        origin, ours = guard._origin, self.guard()
        saved = origin._verifier, origin._clock, origin._authority
        origin._verifier, origin._clock, origin._authority = ours._verifier, ours._clock, ours._authority
        try:
            yield
        finally:
            origin._verifier, origin._clock, origin._authority = saved

    @property
    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public key as a JWK set (RFC 7517), for services that check tokens without a guard."""
        return {"keys": [self.key.public_jwk]}

    @property
    def metadata(self) -> dict[str, str]:
        """The document at `/.well-known/oauth-authorization-server` (RFC 8414), with the URL of the JWK set."""
        return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/.well-known/jwks.json"}
