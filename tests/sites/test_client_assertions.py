"""Clients with a metadata document authenticate with a signed assertion (`private_key_jwt`, RFC 7523)."""

import asyncio
import base64
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jose.jwt import get_unverified_claims

from tests.certificates import Authority
from tests.sites.agents import AGENT, ASKING, BACK, DOCUMENT, HOST, Host
from tests.sites.browsers import VERIFIER, House, refused
from tests.sites.protected import RESOURCES
from tests.sweeps import Sweep, swept
from tests.upstream import Upstream, answer
from tests.world import Body, Client, body_of
from wxauth.clients.documents import ClientDocuments
from wxauth.core.services import Services
from wxauth.outbound.receivers import ReceiverTransport
from wxauth.outbound.urls import NameResolver

ISSUER: Final = "https://auth.test"
TOKEN, REVOKE = f"{ISSUER}/v1/token", f"{ISSUER}/v1/revoke"
KEYS: Final = f"https://{HOST}/oauth/jwks.json"
TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SIGNING: Body = {
    **DOCUMENT,
    "token_endpoint_auth_method": "private_key_jwt",
    "token_endpoint_auth_signing_alg": "RS256",
    "jwks_uri": KEYS,
}
EITHER: Body = {**SIGNING, "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"]}
"""The document as ChatGPT publishes it."""
pytestmark = pytest.mark.settings(resources=RESOURCES, client_documents=HOST)


def encoded(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int) -> str:
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@dataclass(frozen=True)
class Key:
    """A key pair of an agent."""

    private: Any
    kid: str | None = "k1"

    @property
    def alg(self) -> str:
        return "RS256" if isinstance(self.private, rsa.RSAPrivateKey) else "ES256"

    @property
    def public(self) -> Body:
        named = {} if self.kid is None else {"kid": self.kid}
        numbers = self.private.public_key().public_numbers()
        if self.alg == "RS256":
            return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), **named}
        x, y = (encoded(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y, **named}

    def sign(self, text: bytes) -> bytes:
        if self.alg == "RS256":
            return self.private.sign(text, PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self.private.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


RSA: Final = Key(rsa.generate_private_key(65537, 2048))
OTHER: Final = Key(rsa.generate_private_key(65537, 2048), "k2")
WEAK: Final = Key(rsa.generate_private_key(65537, 1024))
EC: Final = Key(ec.generate_private_key(ec.SECP256R1()))
P384: Final = ec.generate_private_key(ec.SECP384R1())


def jwks(*keys: object) -> Body:
    return {"keys": [each.public if isinstance(each, Key) else each for each in keys]}


Signer = Callable[[bytes], bytes]


@dataclass
class Agent:
    """An agent with a refresh token, which can send assertions."""

    client: Client
    house: House
    tokens: Body
    key: Key = RSA
    number: int = 0

    def assertion(self, header: Body | None = None, *, signer: Signer | None = None, **claims: Any) -> str:
        """Return a new assertion with these changes. None omits a field."""
        self.number += 1
        now = int(self.house.stage.clock().timestamp())
        whole = {"iss": AGENT, "sub": AGENT, "aud": ISSUER, "iat": now, "exp": now + 60, "jti": f"j{self.number}"}
        head = {"alg": self.key.alg, "kid": self.key.kid, **(header or {})}
        parts = [{n: v for n, v in each.items() if v is not None} for each in (head, whole | claims)]
        text = ".".join(encoded(part) for part in parts)
        return f"{text}.{encoded((signer or self.key.sign)(text.encode()))}"

    async def post(self, path: str, *, client: Client | None = None, headers: Any = None, **form: Any) -> Any:
        sent = {name: value for name, value in form.items() if value is not None}
        return await (client or self.client).post(path, data=sent, headers=headers)

    async def refresh(self, assertion: str | None = None, **form: Any) -> httpx.Response:
        """Refresh the tokens, and keep the new ones."""
        by: Body = {} if assertion is None else {"client_assertion_type": TYPE, "client_assertion": assertion}
        token = {"grant_type": "refresh_token", "refresh_token": self.tokens["refresh_token"]}
        answered = await self.post("/v1/token", **{**token, **by, **form})
        if answered.status_code == 200:
            self.tokens = answered.json()
        return answered


@pytest.fixture
def host(services: Services) -> Host:
    host = services[ClientDocuments].transport = Host({AGENT: SIGNING, KEYS: jwks(RSA)})
    return host


@pytest.fixture
async def agent(house: House, host: Host) -> Agent:
    """An agent that a user has approved and that has authenticated with an assertion."""
    agent = Agent(house.stage.client, house, {})
    tab = await house.browser.show(**ASKING)
    code = (await tab.approved_by(house.phone, to=BACK))["code"]
    form: Body = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": VERIFIER}
    refused(await agent.post("/v1/token", client_id=AGENT, **form), "invalid_client", 401)
    by: Body = {"client_assertion_type": TYPE, "client_assertion": agent.assertion()}
    agent.tokens = body_of(await agent.post("/v1/token", **form, **by))
    return agent


async def test_an_agent_that_signs_gets_refreshes_and_revokes_its_tokens(agent: Agent) -> None:
    assert get_unverified_claims(agent.tokens["access_token"])["client_id"] == AGENT
    body_of(await agent.refresh(agent.assertion(), client_id=AGENT))
    refused(await agent.refresh(client_id=AGENT), "invalid_client", 401)
    refused(await agent.post("/v1/revoke", token="x", client_id=AGENT), "invalid_client", 401)
    by: Body = {"client_assertion_type": TYPE, "client_assertion": agent.assertion(aud=REVOKE)}
    revoked = await agent.post("/v1/revoke", token=agent.tokens["access_token"], **by)
    assert revoked.status_code == 200
    refused(await agent.refresh(agent.assertion()), "invalid_grant")


async def test_the_metadata_says_so_where_documents_are_allowed(house: House) -> None:
    told = body_of(await house.stage.client.get("/.well-known/oauth-authorization-server"))
    for endpoint in ("token_endpoint", "revocation_endpoint"):
        assert told[f"{endpoint}_auth_methods_supported"][-2:] == ["none", "private_key_jwt"]
        assert told[f"{endpoint}_auth_signing_alg_values_supported"] == ["RS256", "ES256"]
    other = house.stage.make_client(await house.stage.make_services(client_documents=""))
    assert "private_key_jwt" not in (await other.get("/.well-known/openid-configuration")).text


JSON: Final = "Content-Type: application/json\r\n"
TWICE: Final = b'{"iss": 1, "iss": 2}'
RIGHT: dict[str, Body] = {
    "the endpoint": {"aud": TOKEN},
    "the issuer with a slash": {"aud": f"{ISSUER}/"},
    "a list of one": {"aud": [ISSUER]},
    "a list of ours": {"aud": [ISSUER, TOKEN, REVOKE]},
    "five minutes": {"exp": 300},
    "fractions": {"exp": 60.5, "iat": -0.5},
    "without iat": {"iat": None},
    "a clock a little ahead": {"iat": 20, "nbf": 20},
    "a long jti": {"jti": "j" * 256},
    "a jti of any characters": {"jti": "茶\0 "},
    "more claims": {"email": "a@example.com", "nested": {"a": [1]}},
}
HOUR = 3600.0
WRONG: dict[str, Body] = {
    "no iss": {"iss": None},
    "another iss": {"iss": f"{AGENT}2"},
    "no sub": {"sub": None},
    "another sub": {"sub": f"{AGENT}2"},
    "another client": {"iss": f"{AGENT}2", "sub": f"{AGENT}2"},
    "a registered client": {"iss": "shop", "sub": "shop"},
    "a list as sub": {"iss": [AGENT], "sub": [AGENT]},
    "no aud": {"aud": None},
    "another aud": {"aud": "https://other.test"},
    "a path of ours": {"aud": f"{ISSUER}/v1/authorize"},
    "the other endpoint": {"aud": REVOKE},
    "http": {"aud": "http://auth.test"},
    "a longer host": {"aud": f"{ISSUER}.evil.test"},
    "another case": {"aud": "https://AUTH.test/v1/token"},
    "an empty list": {"aud": []},
    "a list with another server": {"aud": [ISSUER, "https://other.test"]},
    "a list in a list": {"aud": [[ISSUER]]},
    "a mapping": {"aud": {ISSUER: 1}},
    "no exp": {"exp": None},
    "a past exp": {"exp": -1},
    "exp now": {"exp": 0},
    "a second more": {"exp": 301},
    "a huge exp": {"exp": 10**300},
    "exp as text": {"exp": str(2**40)},
    "exp as a list": {"exp": [1]},
    "exp true": {"exp": True},
    "iat in the future": {"iat": HOUR},
    "iat as text": {"iat": "now"},
    "nbf in the future": {"nbf": HOUR},
    "nbf as text": {"nbf": "0"},
    "no jti": {"jti": None},
    "an empty jti": {"jti": ""},
    "a number as jti": {"jti": 1},
    "a jti too long": {"jti": "j" * 257},
}


def of_clock(agent: Agent, claims: Mapping[str, Any]) -> Body:
    """Return the claims, with times relative to the service's clock."""
    now = int(agent.house.stage.clock().timestamp())
    times = ("exp", "iat", "nbf")
    return {
        name: now + value if name in times and isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in claims.items()
    }


async def test_the_claims_of_an_assertion_must_be_right(agent: Agent) -> None:
    with Sweep() as sweep:
        for name, claims in RIGHT.items():
            with sweep.case(name):
                body_of(await agent.refresh(agent.assertion(**of_clock(agent, claims))))
        for name, claims in WRONG.items():
            with sweep.case(name):
                refused(await agent.refresh(agent.assertion(**of_clock(agent, claims))), "invalid_client", 401)
    body_of(await agent.refresh(agent.assertion()))


def hmac_by_public_key(text: bytes) -> bytes:
    return hmac.digest(json.dumps(RSA.public).encode(), text, "sha256")


def pss(text: bytes) -> bytes:
    return RSA.private.sign(text, PSS(MGF1(hashes.SHA256()), 32), hashes.SHA256())


HEADERS: dict[str, tuple[Body, Signer | None]] = {
    "none": ({"alg": "none"}, lambda _: b""),
    "none with a signature": ({"alg": "none"}, None),
    "no alg": ({"alg": None}, None),
    "an HMAC": ({"alg": "HS256"}, hmac_by_public_key),
    "PSS": ({"alg": "PS256"}, pss),
    "PSS as RS256": ({}, pss),
    "ES256 by an RSA key": ({"alg": "ES256"}, None),
    "RS512": ({"alg": "RS512"}, lambda text: RSA.private.sign(text, PKCS1v15(), hashes.SHA512())),
    "a list": ({"alg": ["RS256"]}, None),
    "another key": ({}, OTHER.sign),
    "an unknown kid": ({"kid": "k2"}, OTHER.sign),
    "an empty kid": ({"kid": ""}, None),
    "a number": ({"kid": 1}, None),
    "crit": ({"crit": ["exp"], "exp": 1}, None),
    "an empty crit": ({"crit": []}, None),
    "b64": ({"b64": False, "crit": ["b64"]}, None),
    "b64 alone": ({"b64": False}, None),
    "an access token": ({"typ": "at+jwt"}, None),
    "a key of its own": ({"jwk": OTHER.public, "kid": "k2"}, OTHER.sign),
    "keys elsewhere": ({"jku": "https://evil.test/jwks", "kid": "k2"}, OTHER.sign),
    "no signature": ({}, lambda _: b""),
    "a short signature": ({}, lambda text: RSA.sign(text)[:-1]),
}


async def test_only_a_signature_by_a_key_of_the_document_counts(agent: Agent, host: Host) -> None:
    with Sweep() as sweep:
        for name, (header, signer) in HEADERS.items():
            with sweep.case(name):
                refused(await agent.refresh(agent.assertion(header, signer=signer)), "invalid_client", 401)
        for form in ({"typ": "JWT"}, {"typ": "client-authentication+jwt"}, {"typ": "application/jwt"}, {"kid": None}):
            with sweep.case(str(form)):
                body_of(await agent.refresh(agent.assertion(form)))
        good = agent.assertion()
        head, claims, signature = good.split(".")
        for text in (
            *(f"{good}.", f"{head}.{claims}", f"{good}.x", f" {good}", f"{good}=", ".".join((head, claims, "")), "x"),
            *("..", "a.b.c", f"{head}.{encoded([1])}.{signature}", f"{encoded(b'{')}.{claims}.{signature}"),
            f"{head}.{encoded(TWICE)}.{signature}",
            f"{head}.{encoded(b'[' * 3000)}.{signature}",
            f"{head}.{encoded(b' ' * 5000)}.{signature}",
        ):
            with sweep.case(text[-60:]):
                refused(await agent.refresh(text), "invalid_client", 401)
        with sweep.case("too long"):
            refused(await agent.refresh("a" * 8193), "invalid_request")
    body_of(await agent.refresh(good))


SETS: dict[str, Any] = {
    "no set": [],
    "no keys": {"keys": []},
    "a weak key": jwks(WEAK),
    "a private key": jwks({**RSA.public, "d": "AQAB"}),
    "a secret": jwks({"kty": "oct", "k": "AQAB", "kid": "k1"}),
    "a key to encrypt": jwks({**RSA.public, "use": "enc"}),
    "a key to wrap": jwks({**RSA.public, "key_ops": ["wrapKey"]}),
    "another algorithm": jwks({**RSA.public, "alg": "PS256"}),
    "two of one kid": jwks(RSA, {**OTHER.public, "kid": "k1"}),
    "the same twice": jwks(RSA, RSA),
    "a small exponent": jwks({**RSA.public, "e": "Aw"}),
    "an even exponent": jwks({**RSA.public, "e": number(65538)}),
    "a huge exponent": jwks({**RSA.public, "e": number(2**64 + 1)}),
    "no numbers": jwks({"kty": "RSA", "kid": "k1"}),
    "a huge number": jwks({**RSA.public, "n": "f" * 1400}),
    "another curve": jwks({**EC.public, "crv": "P-384"}),
}


async def test_keys_that_are_weak_private_or_ambiguous_are_no_keys(agent: Agent, host: Host) -> None:
    with Sweep() as sweep:
        for name, keys in SETS.items():
            with sweep.case(name):
                host.documents[KEYS] = keys
                agent.house.stage.clock.advance(minutes=6)
                signer = WEAK.sign if name == "a weak key" else None
                refused(await agent.refresh(agent.assertion(signer=signer)), "invalid_client", 401)
    for keys in (
        jwks(*[{"kty": "?"}, None, 1, *map(str, range(9))], RSA),
        jwks(EC, RSA),
        jwks({**RSA.public, "x5c": []}),
    ):
        host.documents[KEYS] = keys
        agent.house.stage.clock.advance(minutes=6)
        body_of(await agent.refresh(agent.assertion()))


async def test_without_a_kid_the_one_key_of_its_algorithm_is_meant(agent: Agent, host: Host) -> None:
    for keys, works in (
        (jwks(RSA), True),
        (jwks(EC, RSA), True),
        (jwks(Key(RSA.private, None)), True),
        (jwks(RSA, OTHER), False),
    ):
        host.documents[KEYS] = keys
        agent.house.stage.clock.advance(minutes=6)
        answered = await agent.refresh(agent.assertion({"kid": None}))
        if works:
            body_of(answered)
        else:
            refused(answered, "invalid_client", 401)


async def test_keys_in_the_document_itself_are_used(agent: Agent, host: Host) -> None:
    inline = {name: value for name, value in SIGNING.items() if "signing_alg" not in name and name != "jwks_uri"}
    host.documents[AGENT] = {**inline, "jwks": jwks(EC)}
    agent.house.stage.clock.advance(minutes=6)
    agent.key = EC
    before = len(host.asked)
    body_of(await agent.refresh(agent.assertion()))
    agent.key = Key(ec.generate_private_key(ec.SECP256R1()), "k3")
    host.documents[AGENT] = {**inline, "jwks": jwks(EC, agent.key)}
    body_of(await agent.refresh(agent.assertion()))
    assert host.asked[before:] == [AGENT, AGENT]


async def test_a_document_that_was_gone_when_its_keys_were_read_again_is_used_when_it_is_back(
    agent: Agent, host: Host
) -> None:
    inline = {name: value for name, value in SIGNING.items() if name != "jwks_uri"} | {"jwks": jwks(RSA)}
    host.documents[AGENT] = inline
    agent.house.stage.clock.advance(minutes=6)
    body_of(await agent.refresh(agent.assertion()))
    host.documents[AGENT] = 404
    refused(await agent.refresh(agent.assertion({"kid": "k9"})), "invalid_client", 401)
    host.documents[AGENT] = inline
    agent.house.stage.clock.advance(minutes=1)
    body_of(await agent.refresh(agent.assertion()))


async def test_the_algorithm_that_the_document_names_is_the_only_one(agent: Agent, host: Host) -> None:
    host.documents[KEYS] = jwks(EC)
    agent.house.stage.clock.advance(minutes=6)
    agent.key = EC
    refused(await agent.refresh(agent.assertion()), "invalid_client", 401)
    host.documents[AGENT] = {**SIGNING, "token_endpoint_auth_signing_alg": "ES256"}
    agent.house.stage.clock.advance(minutes=6)
    body_of(await agent.refresh(agent.assertion()))


async def test_an_unknown_kid_makes_the_keys_be_read_again_once_a_minute(agent: Agent, host: Host) -> None:
    assert host.asked == [AGENT, KEYS]
    agent.key = OTHER
    host.documents[KEYS] = jwks(RSA, OTHER)  # the agent has rotated its keys
    body_of(await agent.refresh(agent.assertion()))
    assert host.asked == [AGENT, KEYS, KEYS]
    for _ in range(3):
        refused(await agent.refresh(agent.assertion({"kid": "k9"})), "invalid_client", 401)
    assert len(host.asked) == 3
    agent.house.stage.clock.advance(seconds=59)
    refused(await agent.refresh(agent.assertion({"kid": "k9"})), "invalid_client", 401)
    assert len(host.asked) == 3
    agent.house.stage.clock.advance(seconds=1)
    host.documents[KEYS] = httpx.ConnectError("could not connect")
    refused(await agent.refresh(agent.assertion({"kid": "k9"})), "invalid_client", 401)
    assert len(host.asked) == 4
    body_of(await agent.refresh(agent.assertion()))  # wxauth uses the keys that it has kept


async def test_an_assertion_counts_once_at_every_replica_and_endpoint(agent: Agent, host: Host) -> None:
    replica = await agent.house.stage.make_services()
    replica[ClientDocuments].transport = host
    other = agent.house.stage.make_client(replica)
    used = agent.assertion()
    by: Body = {"client_assertion_type": TYPE, "client_assertion": used}
    answered = await asyncio.gather(
        *(agent.post("/v1/revoke", client=each, token="x", **by) for each in (agent.client, other) * 3)
    )
    assert sorted(each.status_code for each in answered) == [200, *[401] * 5]
    refused(await agent.refresh(used), "invalid_client", 401)
    again = get_unverified_claims(used)["jti"]
    refused(
        await agent.refresh(agent.assertion(jti=again, exp=of_clock(agent, {"exp": 300})["exp"])), "invalid_client", 401
    )
    body_of(await agent.refresh(agent.assertion()))


async def test_where_the_document_allows_none_a_wrong_assertion_is_refused_all_the_same(
    agent: Agent, host: Host
) -> None:
    host.documents[AGENT] = EITHER
    agent.house.stage.clock.advance(minutes=6)
    body_of(await agent.refresh(client_id=AGENT))
    body_of(await agent.refresh(agent.assertion()))
    for wrong in (agent.assertion(signer=OTHER.sign), agent.assertion(aud="https://other.test"), "", "x"):
        refused(await agent.refresh(wrong, client_id=AGENT), "invalid_client", 401)
    refused(await agent.refresh(client_id=AGENT, client_assertion_type=TYPE), "invalid_client", 401)
    refused(await agent.refresh(client_id=AGENT, client_assertion=agent.assertion()), "invalid_client", 401)
    refused(await agent.refresh(agent.assertion(), client_assertion_type=f"{TYPE}2"), "invalid_client", 401)
    host.documents[AGENT] = {**DOCUMENT}
    agent.house.stage.clock.advance(minutes=6)
    refused(await agent.refresh(agent.assertion(), client_id=AGENT), "invalid_client", 401)
    body_of(await agent.refresh(client_id=AGENT))


async def test_a_client_authenticates_in_one_way_and_names_itself_once(agent: Agent) -> None:
    basic = {"Authorization": f"Basic {base64.b64encode(b'shop:secret').decode()}"}
    refused(await agent.refresh(agent.assertion(), headers=basic), "invalid_request")
    refused(await agent.refresh(agent.assertion(), headers={"Authorization": "Bearer x"}), "invalid_request")
    refused(await agent.refresh(agent.assertion(), client_secret="x"), "invalid_request")
    refused(await agent.refresh(agent.assertion(), client_id="shop"), "invalid_client", 401)
    refused(await agent.refresh(agent.assertion(), client_id=f"{AGENT}2"), "invalid_client", 401)
    by: Body = {"client_assertion_type": TYPE, "client_assertion": agent.assertion()}
    refused(await agent.post("/v1/device_authorization", **by), "invalid_client", 401)
    body_of(await agent.refresh(agent.assertion(), client_id=AGENT))


@swept(
    "document",
    [
        {**SIGNING, "jwks": jwks(RSA)},
        {**SIGNING, "jwks_uri": "http://claude.test/jwks"},
        {**SIGNING, "jwks_uri": "https://u@claude.test/jwks"},
        {**SIGNING, "jwks_uri": f"{KEYS}#a"},
        {**SIGNING, "jwks_uri": "/jwks"},
        {**SIGNING, "jwks_uri": [KEYS]},
        {**SIGNING, "jwks_uri": None},
        {**SIGNING, "jwks_uri": None, "jwks": jwks(WEAK)},
        {**SIGNING, "jwks_uri": None, "jwks": jwks({**RSA.public, "d": "AQAB"})},
        {**EITHER, "jwks_uri": None, "jwks": jwks(RSA, {"kty": "oct", "k": "AQAB"})},
    ],
)
async def test_a_document_needs_usable_public_keys(house: House, document: Body) -> None:
    house.stage.services[ClientDocuments].transport = Host({AGENT: document})
    house.stage.clock.advance(minutes=6)
    assert (await house.browser.open(**ASKING)).status_code == 400
    house.stage.clock.advance(minutes=2)


async def test_the_document_of_chatgpt_is_an_agent(house: House, host: Host) -> None:
    published = {
        "client_id": AGENT,
        "client_uri": f"https://{HOST}/",
        "redirect_uris": [BACK, "chatgpt://callback", "http://192.168.0.1/"],
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "client_name": "ChatGPT",
        "logo_uri": "https://persistent.oaistatic.com/sonic/misc/openai-logo.png",
        "token_endpoint_auth_signing_alg": "RS256",
        "jwks_uri": KEYS,
    }
    host.documents[AGENT] = published
    agent = Agent(house.stage.client, house, {})
    signed: Body = {"client_assertion_type": TYPE, "client_assertion": agent.assertion(aud=TOKEN)}
    for by in ({"client_id": AGENT}, signed):
        tab = await house.browser.show(**ASKING)
        code = (await tab.approved_by(house.phone, to=BACK))["code"]
        form: Body = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": VERIFIER}
        body_of(await agent.post("/v1/token", **form, **by))
    assert (await house.browser.open(**{**ASKING, "redirect_uri": "chatgpt://callback"})).status_code == 400


async def test_while_the_host_is_away_what_is_kept_counts_and_nobody_is_logged_out(agent: Agent, host: Host) -> None:
    host.documents = {AGENT: httpx.ConnectError("could not connect"), KEYS: 503}
    agent.house.stage.clock.advance(hours=1)
    body_of(await agent.refresh(agent.assertion()))
    refused(await agent.refresh(client_id=AGENT), "invalid_client", 401)
    replica = await agent.house.stage.make_services()
    replica[ClientDocuments].transport = host
    agent.client = agent.house.stage.make_client(replica)
    for answered in (await agent.refresh(agent.assertion()), await agent.refresh(client_id=AGENT)):
        assert refused(answered, "temporarily_unavailable", 503).headers["retry-after"] == "60"
    host.documents = {AGENT: SIGNING, KEYS: jwks(RSA)}
    agent.house.stage.clock.advance(minutes=1)
    body_of(await agent.refresh(agent.assertion()))
    host.documents[AGENT] = 404
    agent.house.stage.clock.advance(minutes=6)
    refused(await agent.refresh(agent.assertion()), "invalid_client", 401)


async def test_while_the_host_of_the_keys_is_away_the_agent_is_asked_to_try_again(agent: Agent, host: Host) -> None:
    for keys, code, status in ((503, "temporarily_unavailable", 503), ({"no": "keys"}, "invalid_client", 401)):
        host.documents = {AGENT: SIGNING, KEYS: keys}
        replica = await agent.house.stage.make_services()
        replica[ClientDocuments].transport = host
        agent.client = agent.house.stage.make_client(replica)
        refused(await agent.refresh(agent.assertion()), code, status)


async def test_keys_are_fetched_by_the_rules_of_documents(house: House, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    document = {**SIGNING}
    behaviours: list[Any] = [
        answer(document, headers=JSON),
        answer(jwks(RSA), status="302 Found", headers=f"{JSON}Location: /k\r\n"),
    ]
    async with Upstream(lambda writer: behaviours.pop(0)(writer), tls=authority.server("127.0.0.1")) as it:
        place = f"127.0.0.1:{it.port}"
        document |= {"client_id": f"https://{place}/a", "jwks_uri": f"https://{place}/k"}
        behaviours[0] = answer(document, headers=JSON)
        services = await house.stage.make_services(client_documents=place)
        services[ClientDocuments].transport = ReceiverTransport(resolve=NameResolver().resolve, tls=authority.trusted())
        agent = Agent(house.stage.make_client(services), house, {"refresh_token": "wxr_x"})
        claims = {"iss": document["client_id"], "sub": document["client_id"]}

        async def outcome() -> str:
            return (await agent.refresh(agent.assertion(**claims))).json()["error"]

        assert await outcome() == "temporarily_unavailable"  # wxauth doesn't follow redirects
        house.stage.clock.advance(minutes=1)
        behaviours.append(answer(jwks(RSA), headers=JSON))
        assert await outcome() == "invalid_grant"
        assert it.requests == ["/a", "/k", "/k"]
        for inside in ("https://169.254.169.254/k", "https://[fe80::1]/k", "https://0.0.0.0/k"):
            document["jwks_uri"] = inside
            behaviours.append(answer(document, headers=JSON))
            house.stage.clock.advance(minutes=6)
            assert await outcome() == "invalid_client"
            assert house.stage.logged("client_keys_refused")[-1]["reason"] == "the address is not allowed"
