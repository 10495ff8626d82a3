"""The pictures in WeChat's responses."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CodePicture:
    """A picture with its content type."""

    content: bytes
    content_type: Literal["image/jpeg", "image/png"]
