"""Sample events, as a sibling receives them."""

from typing import Any

from tests.world import Body


def event(number: int, kind: str, user_id: str, **data: Any) -> Body:
    return {"id": f"event-{number}", "type": kind, "user_id": user_id, "data": data}
