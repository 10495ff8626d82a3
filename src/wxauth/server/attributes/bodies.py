"""Requests and answers with attributes."""

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, RootModel

from wxauth.server.attributes.attributes import check_patch, patched


def _checked(patch: dict[str, Any]) -> dict[str, Any]:
    check_patch(patch)
    patched({}, patch)  # too many alone
    return patch


AttributesPatch = Annotated[dict[str, Any], AfterValidator(_checked)]
"""A merge patch of a user's attributes."""
ShownAttributes = Annotated[
    dict[str, Any], Field(description="The operator's own facts about the user.", examples=[{"tier": "gold"}])
]


class AttributesRequest(RootModel[AttributesPatch]):
    """A merge patch (RFC 7396) of a user's attributes: null removes a name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tier": "gold", "trial": None}]})
