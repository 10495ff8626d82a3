"""Request bodies with phone codes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class PhoneRequest(BaseModel):
    """The phone button's code."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"code": "e31968a7f94cc5ee25fafc2aef2773f0bb8c3937b22520eb8ee345274d00c144"}]},
        hide_input_in_errors=True,
    )

    code: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        description="`detail.code` of `bindgetphonenumber`, not of `wx.login`. Works for five minutes.", repr=False
    )
