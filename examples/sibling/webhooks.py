"""A receiver of wxauth's webhooks, which erases the orders of an erased user, and moves the orders of a merged user."""

import os
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from standardwebhooks import Webhook, WebhookVerificationError

from examples.sibling.orders import Orders

app = FastAPI(title="Orders' webhooks")
app.state.orders = Orders(Path(os.environ.get("ORDERS", "orders.sqlite")))


@app.post("/webhooks/wxauth", status_code=204)
async def receive(request: Request) -> Response:
    body = await request.body()  # the raw bytes, because the signature covers each of them
    try:
        message = Webhook(os.environ["WEBHOOK_SECRET"]).verify(body, dict(request.headers))
    except WebhookVerificationError:
        return Response("not from wxauth, or too old", status_code=401)
    await run_in_threadpool(request.app.state.orders.follow, message["data"])
    return Response(status_code=204)  # sent after the event is stored, because wxauth does not send it again
