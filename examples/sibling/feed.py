"""A reader of wxauth's events, for a service that wxauth can't connect to, or that was down for days."""

import os
import time
from pathlib import Path

import httpx

from examples.sibling.orders import Orders

AT_ONCE = 200


def read_on(wxauth: httpx.Client, orders: Orders) -> None:
    """Apply all events since the last run. The first run starts with the events from now on."""
    while True:
        answer = wxauth.get("/v1/events", params={"after": orders.cursor or "now"})
        if answer.status_code == 410:  # the next events were deleted, or wxauth's database was restored from a backup
            begin_anew(wxauth, orders)
            return
        page = answer.raise_for_status().json()
        for event in page["items"]:
            orders.follow(event)
        # The cursor is stored after the events are applied. After a crash, some events are applied again, which changes
        # nothing.
        orders.cursor = page["next_cursor"]
        if not page["items"]:
            return


def begin_anew(wxauth: httpx.Client, orders: Orders) -> None:
    """Read every user again. The cursor is read first, so that no event in between is missed."""
    cursor = wxauth.get("/v1/events", params={"after": "now"}).raise_for_status().json()["next_cursor"]
    user_ids = orders.user_ids()
    for start in range(0, len(user_ids), AT_ONCE):
        asked = user_ids[start : start + AT_ONCE]
        found = wxauth.post("/v1/users/lookup", json={"ids": asked}).raise_for_status().json()["items"]
        users = {user_id: user for user in found for user_id in (user["id"], *user["former_ids"])}
        orders.catch_up(users, asked)
    orders.cursor = cursor


if __name__ == "__main__":
    orders = Orders(Path(os.environ.get("ORDERS", "orders.sqlite")))
    auth = httpx.BasicAuth(os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"])
    with httpx.Client(base_url=os.environ.get("WXAUTH_ISSUER", "http://127.0.0.1:8000"), auth=auth) as wxauth:
        while True:
            try:
                read_on(wxauth, orders)
            except httpx.HTTPError as exc:
                print(f"{type(exc).__name__}, trying again")  # noqa: T201 - the example has no log
            time.sleep(1)
