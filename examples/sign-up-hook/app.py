"""A sign-up hook that lets only members of the shop sign up, and sets their number and roles.

pip install fastapi standardwebhooks uvicorn
SIGN_UP_HOOK_SECRET=$WXAUTH_SIGN_UP_HOOK_SECRET uvicorn app:app --port 8090
"""

import os

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from standardwebhooks import Webhook, WebhookVerificationError

MEMBERS = {"openid-of-alice": {"external_id": "10023", "roles": ["member"], "attributes": {"tier": "gold"}}}

app = FastAPI(title="Who may sign up")


@app.post("/sign-up")
async def sign_up(request: Request) -> Response:
    try:
        message = Webhook(os.environ["SIGN_UP_HOOK_SECRET"]).verify(await request.body(), dict(request.headers))
    except WebhookVerificationError:
        return Response("not from wxauth", status_code=401)
    if message["type"] == "test":  # from `wxauth check`
        return JSONResponse({"allow": True})
    member = MEMBERS.get(message["data"]["openid"])
    if member is None:
        return JSONResponse({"allow": False, "title": "请先到门店办理会员卡"})
    return JSONResponse({"allow": True, **member})
