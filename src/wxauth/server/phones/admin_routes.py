"""`/v1/admin/users/{user_id}/phone`: staff read a whole number, and remove one that must not stay."""

from typing import Annotated
from uuid import UUID

from pydantic import Field
from typing_extensions import TypedDict

from wxauth.errors import Title
from wxauth.server.phones import removing
from wxauth.server.users.admin import read_listed_user
from wxauth.server.users.admin_routes import NO_SUCH_USER, StaffReadsDep
from wxauth.server.users.callers import StaffDep
from wxauth.server.users.staff_reads import Read
from wxauth.server.web.dependencies import ClockDep, DatabaseDep
from wxauth.server.web.direct import Router

router = Router("admin")


class PhoneAnswer(TypedDict):
    """A phone number."""

    phone: Annotated[str | None, Field(description="E.164.", examples=["+8613800138000"])]
    phone_verified: Annotated[bool | None, Field(description="As in a user.", examples=[True])]


@router.get(
    "/v1/admin/users/{user_id}/phone",
    summary=Title("Read a user's phone number", "查看用户的手机号"),
    failures=[NO_SUCH_USER],
)
async def read_phone_of_user(
    staff: StaffDep, reads: StaffReadsDep, database: DatabaseDep, user_id: UUID
) -> PhoneAnswer:
    """The whole number, which the role `support` sees masked elsewhere. The audit trail records who read it."""
    user = await read_listed_user(database, user_id)
    reads.note_read(staff.actor, Read.PHONE, user.id)
    return {"phone": user.phone, "phone_verified": user.phone_verified}


@router.delete(
    "/v1/admin/users/{user_id}/phone",
    summary=Title("Remove a user's phone number", "移除用户的手机号"),
    failures=[NO_SUCH_USER],
)
async def remove_phone_of_user(staff: StaffDep, database: DatabaseDep, clock: ClockDep, user_id: UUID) -> None:
    """Remove a user's phone number. Idempotent. The user may verify it again with the phone button."""
    await removing.remove_phone_of(
        database, user_id, by=staff.actor, spares_staff=not staff.is_administrator, now=clock()
    )
