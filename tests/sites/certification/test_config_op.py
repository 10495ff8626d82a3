"""Tests of the plan "Config OP" of the OpenID Foundation's conformance suite.

The tests also include what the plans about logouts require of discovery.
"""

import re

import pytest

from tests.world import AddSite, Client

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+", re.ASCII)
_PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


@pytest.mark.parametrize("path", ["openid-configuration", "oauth-authorization-server"])
async def test_oidcc_discovery_endpoint_verification(client: Client, add_site: AddSite, path: str) -> None:
    await add_site()
    answer = await client.get(f"/.well-known/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    metadata = answer.json()
    assert metadata["issuer"] == "https://auth.test"
    endpoints = [metadata[name] for name in metadata if name.endswith(("_endpoint", "_uri"))]
    assert all(url.startswith("https://") for url in endpoints)
    assert "registration_endpoint" not in metadata

    assert "code" in metadata["response_types_supported"]
    assert {"authorization_code", "refresh_token"} <= set(metadata["grant_types_supported"])
    assert metadata["subject_types_supported"] == ["public"]
    assert "RS256" in metadata["id_token_signing_alg_values_supported"]
    assert "none" not in metadata["id_token_signing_alg_values_supported"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert {"client_secret_basic", "client_secret_post"} <= set(metadata["token_endpoint_auth_methods_supported"])
    for name in ("request_parameter_supported", "request_uri_parameter_supported", "claims_parameter_supported"):
        assert metadata[name] is False
    assert metadata["introspection_endpoint"] == "https://auth.test/v1/introspect"
    assert metadata["introspection_endpoint_auth_methods_supported"] == ["client_secret_basic", "client_secret_post"]
    assert metadata["backchannel_logout_supported"] is True
    assert metadata["backchannel_logout_session_supported"] is True
    assert {"sub", "iss", "aud", "auth_time", "name", "sid"} <= set(metadata["claims_supported"])
    assert "openid" in metadata["scopes_supported"]
    assert all(_SCOPE.fullmatch(scope) for scope in metadata["scopes_supported"])
    assert metadata["ui_locales_supported"] == ["zh-CN", "en"]

    keys = (await client.get(metadata["jwks_uri"].removeprefix("https://auth.test"))).json()["keys"]
    assert {"RS256", "ES256"} <= {key["alg"] for key in keys}
    assert len({key["kid"] for key in keys}) == len(keys)
    for key in keys:
        assert key["use"] == "sig"
        assert not _PRIVATE & key.keys()
