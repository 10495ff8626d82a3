"""`/v1/me/authorizations`: the mini-program logs the person in to a site that it shows in a web-view."""

from wxauth.errors import InvalidRequest, Title
from wxauth.server.login.login import PROOF_FAILURES
from wxauth.server.users.callers import DeviceDep
from wxauth.server.web.direct import Router
from wxauth.server.websites.authorize import Unanswerable
from wxauth.server.websites.bodies import AuthorizationAnswer, AuthorizationRequest
from wxauth.server.websites.dependencies import AuthorizationsDep
from wxauth.server.websites.oauth_errors import OAuthError
from wxauth.server.websites.requests import check_parameters
from wxauth.server.websites.scanning_phones import PhoneDep

router = Router("scans")


@router.post(
    "/v1/me/authorizations",
    summary=Title("Log in to a site shown in the mini-program", "登录小程序内打开的网站"),
    failures=PROOF_FAILURES,
)
async def authorize_site(
    caller: PhoneDep, body: AuthorizationRequest, authorizations: AuthorizationsDep, device: DeviceDep
) -> AuthorizationAnswer:
    """Answer the request that a site in a web-view has made to `/v1/authorize`. Open `redirect_to` in a web-view.

    The body has the parameters of that request, as strings, and `login_code`: as for an approval, an access token alone
    opens no session. An error that concerns the site is in `redirect_to`, as `error`. `login_required` means that the
    site requires a newer login: log in again, then repeat the request.
    """
    try:
        parameters = check_parameters(list(body.parameters.items()))
        url = await authorizations.answer(caller, body.login_code, parameters, device=device)
    except OAuthError as exc:
        raise InvalidRequest.of("body", exc.description) from None
    except Unanswerable as exc:
        raise InvalidRequest.of(exc.mistake, "must be one that the site was added with") from None
    return {"redirect_to": url}
