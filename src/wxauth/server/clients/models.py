"""The table of clients: services and sites of the operator's own."""

from datetime import datetime
from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlmodel import Field, SQLModel

from wxauth.server.clients.client_model import CLIENT_NAME, Scope
from wxauth.server.core.models import TIME

_EMPTY: Final = text("'{}'")
_FALSE: Final = text("false")


class StoredClient(SQLModel, table=True):
    """A client (`client.py`), with the hashes of its secrets."""

    __tablename__ = "clients"
    __table_args__ = (
        CheckConstraint(f"name ~ '^{CLIENT_NAME}$'", name="name"),
        # With a secret, a public client would be accepted where only confidential ones are.
        CheckConstraint("(secret_hash IS NULL) = is_public AND octet_length(secret_hash) = 32", name="secret_hash"),
        CheckConstraint(
            "(former_secret_hash IS NULL) = (former_secret_until IS NULL) AND octet_length(former_secret_hash) = 32",
            name="former_secret",
        ),
        CheckConstraint("char_length(title) BETWEEN 1 AND 64", name="title"),
        CheckConstraint("(title IS NOT NULL) = (device OR cardinality(redirect_uris) > 0)", name="grant"),
        # A service has only scopes of services. A site has at least one other scope.
        CheckConstraint(f"(scopes <@ '{{{','.join(Scope)}}}') = (title IS NULL)", name="scopes"),
        # A public client cannot prove its name: anybody could start a device's scan in its name, and the phone would
        # show the wrong site.
        CheckConstraint("NOT (is_public AND device)", name="is_public"),
        CheckConstraint(
            "(id_token_alg IS NULL) = (title IS NULL) AND id_token_alg IN ('RS256', 'ES256')", name="id_token_alg"
        ),
        CheckConstraint(
            "title IS NOT NULL OR NOT (is_public OR near OR user_code)"
            " AND cardinality(logout_uris) = 0"
            " AND num_nonnulls(app_id, account_app_id, website_app_id, email_domain) = 0",
            name="service",
        ),
    )

    name: str = Field(sa_type=Text, primary_key=True)
    title: str | None = Field(sa_type=Text)
    scopes: list[str] = Field(
        sa_type=ARRAY(Text), sa_column_kwargs={"server_default": text("'{introspect,access_token}'")}
    )
    is_public: bool = Field(sa_column_kwargs={"server_default": _FALSE})
    device: bool = Field(sa_column_kwargs={"server_default": _FALSE})
    redirect_uris: list[str] = Field(sa_type=ARRAY(Text), sa_column_kwargs={"server_default": _EMPTY})
    logout_uris: list[str] = Field(sa_type=ARRAY(Text), sa_column_kwargs={"server_default": _EMPTY})
    app_id: str | None = Field(sa_type=Text)
    account_app_id: str | None = Field(sa_type=Text)
    website_app_id: str | None = Field(sa_type=Text)
    near: bool = Field(sa_column_kwargs={"server_default": _FALSE})
    user_code: bool = Field(sa_column_kwargs={"server_default": _FALSE})
    email_domain: str | None = Field(sa_type=Text)
    id_token_alg: str | None = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    former_secret_until: datetime | None = Field(sa_type=TIME)
    secret_hash: bytes | None = Field(sa_type=BYTEA, repr=False)
    """SHA-256 of the secret, which itself is not stored; null if the client is public."""
    former_secret_hash: bytes | None = Field(sa_type=BYTEA, repr=False)
    """SHA-256 of the former secret, which works until `former_secret_until`."""
