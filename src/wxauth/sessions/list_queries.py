"""The statements that list a user's sessions, and the columns that lists of sessions show.

The rows of a list have the form of the responses, so the models of the responses are defined here, too.
"""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from wxauth.core.models import Address
from wxauth.core.statements import Statement
from wxauth.sessions.devices import DescribedDevice


class OpenedFrom(TypedDict):
    """The address and device from which a session was opened."""

    ip: Annotated[str | None, Field(examples=["203.0.113.7"])]
    device: DescribedDevice


class ClientOfSession(TypedDict):
    """A client that a user has allowed to use a resource."""

    title: Annotated[str, Field(examples=["Claude"])]
    host: Annotated[str | None, Field(description="The host of a client that isn't registered. Otherwise null.")]


class ResourceOfSession(TypedDict):
    """A resource that a client may use."""

    resource: Annotated[str, Field(examples=["https://mcp.example.com/mcp"])]
    title: Annotated[str, Field(examples=["小店助手"])]


class OpenSession(BaseModel):
    """A login on one device."""

    id: UUID = Field(examples=["01933c5e-8f1b-7d20-a4c5-93b1f0a7e6d2"])
    app_id: str = Field(examples=["wx1a2b3c4d5e6f7a8b"])
    client_id: str | None = Field(description="The client_id of the website. Null for a login in an app.")
    client: ClientOfSession | None = Field(
        description="The client, for a login that is for a resource. Otherwise null."
    )
    resource: ResourceOfSession | None = Field(
        description="The resource, for a login that is for a resource. Otherwise null."
    )
    scopes: list[str] | None = Field(
        description="The granted scopes, for a login that is for a resource. Otherwise null.",
        examples=[["orders:read"]],
    )
    device: DescribedDevice = Field(description="Operating system, and WeChat or browser, from the User-Agent.")
    ip: Address = Field(
        description="The IP address of the session's last use. For a website's session, the address of the login."
    )
    opened: OpenedFrom
    created_at: datetime
    last_used_at: datetime = Field(examples=["2026-11-20T09:30:00Z"])
    expires_at: datetime = Field(
        description="When the session expires if it isn't used.", examples=["2026-12-20T09:30:00Z"]
    )


class PastSession(OpenSession):
    """A session that has ended or expired."""

    ended_at: datetime = Field(examples=["2026-11-20T10:00:00Z"])
    ended_reason: str = Field(
        description="The reason, as in the event `session.ended`, or `expired`.", examples=["signed_out"]
    )


# The value of `opened_ip` for an unknown address, because null means that the address has not changed. For the same
# reason, an empty `opened_user_agent` stands for an unknown User-Agent.
NO_ADDRESS: Final = "'0.0.0.0/0'::inet"
_OPENED_IP: Final = f"NULLIF(COALESCE(opened_ip, ip), {NO_ADDRESS})"
_OPENED_USER_AGENT: Final = "NULLIF(COALESCE(opened_user_agent, user_agent), '')"
# The address and the User-Agent from which a session was opened. The columns of the table are null until a refresh with
# another address or User-Agent, so that a login does not store each value twice.
OPENED: Final = f"""
{_OPENED_IP} AS opened_ip,
{_OPENED_USER_AGENT} AS opened_user_agent"""
# These columns are null unless the session is for a resource. An unregistered client's client_id is the URL of its
# metadata document.
FOR_RESOURCE: Final = """
CASE WHEN resource IS NOT NULL THEN jsonb_build_object(
    'title', client_name, 'host', CASE WHEN client_id LIKE 'https://%' THEN split_part(client_id, '/', 3) END
) END AS client,
CASE WHEN resource IS NOT NULL THEN jsonb_build_object('resource', resource, 'title', resource_title) END AS resource,
CASE WHEN resource IS NOT NULL THEN string_to_array(scope, ' ') END AS scopes"""
_LISTED: Final = f"""id, app_id, client_id, user_agent AS device, ip, created_at, last_used_at, expires_at,
       jsonb_build_object('ip', abbrev({_OPENED_IP}), 'device', {_OPENED_USER_AGENT}) AS opened, {FOR_RESOURCE}"""
OPEN_SESSIONS: Final = Statement[OpenSession](f"""
SELECT {_LISTED} FROM sessions
 WHERE user_id = :user_id AND revoked_at IS NULL AND expires_at > :now
   AND (:after_at::timestamptz IS NULL OR (last_used_at, id) < (:after_at, :after_id::uuid))
 ORDER BY last_used_at DESC, id DESC LIMIT :limit
""")
PAST_SESSIONS: Final = Statement[PastSession](f"""
SELECT {_LISTED}, COALESCE(revoked_at, expires_at) AS ended_at, COALESCE(revoked_reason, 'expired') AS ended_reason
  FROM sessions WHERE user_id = :user_id AND (revoked_at IS NOT NULL OR expires_at <= :now)
 ORDER BY last_used_at DESC, id DESC LIMIT :limit
""")
