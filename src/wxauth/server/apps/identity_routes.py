"""`/v1/me/identities`: the apps in which a person is known."""

from wxauth.errors import Title
from wxauth.server.apps.dependencies import AppsDep
from wxauth.server.users.bodies import OwnIdentitiesAnswer
from wxauth.server.users.callers import CallerDep
from wxauth.server.users.user_rows import identities_of
from wxauth.server.web.dependencies import DatabaseDep
from wxauth.server.web.direct import Router

router = Router("me")


@router.get("/v1/me/identities", summary=Title("List my identities", "查看我的微信身份"))
async def list_my_identities(caller: CallerDep, apps: AppsDep, database: DatabaseDep) -> OwnIdentitiesAnswer:
    """The caller's openids in each app, the oldest first."""
    identities = await identities_of(database, caller.user.id)
    return {
        "items": [
            {
                "app_id": identity.app_id,
                "openid": identity.openid,
                "kind": apps.kind_of(identity.app_id),
                "created_at": identity.created_at,
            }
            for identity in identities
        ]
    }
