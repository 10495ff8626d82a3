"""With `/v1/me/id-token`, a mini-program or mobile app logs its user in to another back end, such as Supabase."""

from functools import partial
from typing import Any

import pytest
from jose import jwt

from tests.fakes import START
from tests.metrics import scrape
from tests.problems import problem_of
from tests.sites.browsers import BYE, House, id_claims
from tests.sweeps import Sweep
from tests.world import Phone, Stage, add_client
from wxauth.login.proofs import Proofs
from wxauth_desk.wechat import APPS, MOBILE_APP

pytestmark = pytest.mark.shop(phone_id_token=True, logout_uris=[BYE])


async def token_of(house: House, **fields: Any) -> str:
    answer = await house.id_token(**fields)
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"id_token", "expires_in"}
    assert (answer.json()["expires_in"], answer.headers["cache-control"]) == (300, "no-store")
    return answer.json()["id_token"]


# Tests of what the id_token contains.


async def test_a_mini_program_gets_an_id_token_that_lives_five_minutes_and_names_no_session(house: House) -> None:
    await house.stage.rows.execute("UPDATE users SET nickname = '小明'")
    house.stage.clock.advance(minutes=7)
    token = await token_of(house, nonce="n" * 512)
    assert jwt.get_unverified_header(token)["typ"] == "JWT"
    now = int(house.stage.clock().timestamp())
    assert await id_claims(house.stage.client, token) == {
        **{"iss": "https://auth.test", "sub": house.phone.user_id, "aud": "shop", "exp": now + 300, "iat": now},
        **{"auth_time": now, "amr": ["wechat_mini_program"], "nonce": "n" * 512},
        **{"name": "小明", "updated_at": int(START.timestamp())},
    }
    assert "nonce" not in await id_claims(house.stage.client, await token_of(house))
    assert (await house.stage.number("sessions"), await house.stage.number("site_logins")) == (1, 0)


async def test_it_has_the_clients_scopes_claims_and_algorithm(house: House) -> None:
    await house.stage.rows.execute("""UPDATE users SET roles = '{editor}', attributes = '{"tier": "gold"}'""")
    added = {"role": "authenticated", "tier": "$attributes.tier", "openid_here": "$openid"}
    await house.change(scopes=["openid", "roles"], claims=added, id_token_alg="ES256")
    token = await token_of(house)
    assert jwt.get_unverified_header(token)["alg"] == "ES256"
    claims = await id_claims(house.stage.client, token)
    assert claims["roles"] == ["editor"]
    assert {name: claims.get(name) for name in (*added, "name")} == {
        **{"role": "authenticated", "tier": "gold", "openid_here": house.phone.tokens["user"]["openid"], "name": None}
    }


@pytest.mark.usefixtures("simulated")
async def test_a_mobile_app_proves_its_person_by_its_own_code(stage: Stage) -> None:
    stage = await stage.replica(apps=(*APPS, MOBILE_APP))
    now = stage.services.clock()
    await add_client(stage.services.database, "supabase", phone_id_token=True, id_token_alg="ES256", now=now)
    phone = Phone(stage.client, await stage.login("alice", app=MOBILE_APP))
    ask = partial(phone.ask, "POST", "/id-token")
    answer = await ask(json={"client_id": "supabase", "login_code": "alice"})
    claims = await id_claims(stage.client, answer.json()["id_token"], "supabase")
    assert (claims["amr"], claims["sub"]) == (["wechat_mobile_app"], phone.user_id)
    problem_of(await ask(json={"client_id": "supabase", "login_code": "mallory"}), "wrong_person", 403)


# Tests of what the id_token can't be used for.


async def test_it_is_neither_a_bearer_nor_an_id_token_hint(house: House) -> None:
    token = await token_of(house)
    problem_of(await house.stage.me(token), "invalid_token", 401)
    refused = await house.browser.open(id_token_hint=token)
    assert "id_token_hint" in refused.headers["location"], refused.headers
    assert (await house.log_out(id_token_hint=token, post_logout_redirect_uri=BYE)).status_code == 400
    assert (await house.phone.ask("GET")).status_code == 200


# Tests of refusals.


async def test_only_a_client_that_was_added_for_it_is_served_and_wechat_is_not_asked_else(house: House) -> None:
    await house.add_site("plain")
    await add_client(house.stage.services.database, "billing", now=house.stage.clock())
    asked = len(house.stage.wechat.calls)
    with Sweep() as sweep:
        for client_id in ("plain", "billing", "nobody", "wxauth-admin", "", "a\0b", "x" * 5000):
            with sweep.case(client_id[:20]):
                errors = problem_of(await house.id_token(client_id=client_id), "invalid_request", 422)["errors"]
                assert errors[0]["field"] == "client_id"
        for wrong in ({"nonce": "n" * 513}, {"nonce": 1}, {"client_id": None}, {"login_code": ""}):
            with sweep.case(str(wrong)[:20]):
                problem_of(await house.id_token(**wrong), "invalid_request", 422)
    assert len(house.stage.wechat.calls) == asked
    house.phone.client = await house.stage.make(erasure_grace_days=7)
    await house.erase(status=202)
    problem_of(await house.id_token(), "invalid_token", 401)


async def test_each_refusal_is_counted_by_door_and_a_late_one_also_for_the_user(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem_of(await house.id_token(client_id="nobody"), "invalid_request", 422)
    prove, counts = Proofs.prove, list[int]()

    async def prove_while_the_client_changes(*args: Any, **options: Any) -> None:
        await prove(*args, **options)
        await house.change(phone_id_token=False)
        counts.append(await house.stage.number("attempts"))

    monkeypatch.setattr(Proofs, "prove", prove_while_the_client_changes)
    problem_of(await house.id_token(), "invalid_request", 422)
    assert [await house.stage.number("attempts")] == [count + 1 for count in counts]
    scraped = await scrape(house.stage.client)
    assert scraped("wxauth_doors_total", door="phone", outcome="refused") == 2
