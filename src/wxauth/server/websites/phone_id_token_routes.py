"""`/v1/me/id-token`: a mini-program or mobile app gets an id_token for another back end."""

from wxauth.errors import Title, WrongAppKind
from wxauth.server.login.login import PROOF_FAILURES
from wxauth.server.users.callers import CallerInTurnDep, DeviceDep
from wxauth.server.web.direct import Router
from wxauth.server.websites.bodies import PhoneIdTokenAnswer, PhoneIdTokenRequest
from wxauth.server.websites.dependencies import PhoneIdTokensDep
from wxauth.server.websites.phone_id_tokens import LASTS_SECONDS

router = Router("me")


@router.post(
    "/v1/me/id-token",
    summary=Title("Get an id_token for another back end", "获取用于其他后端的 id_token"),
    failures=[*PROOF_FAILURES, WrongAppKind],
)
async def make_id_token(
    caller: CallerInTurnDep, body: PhoneIdTokenRequest, id_tokens: PhoneIdTokensDep, device: DeviceDep
) -> PhoneIdTokenAnswer:
    """Get an id_token of a client that was added with `--phone-id-token`, such as Supabase, to log in there.

    `login_code` proves that the person holds the phone, because an access token may have been stolen. It must belong to
    the session's identity. The id_token names no session, and opens none here: it is no `id_token_hint`.
    """
    token = await id_tokens.issue(caller, body.client_id, body.login_code, body.nonce or None, ip=device.ip)
    return {"id_token": token, "expires_in": LASTS_SECONDS}
