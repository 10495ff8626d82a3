"""What the bodies and parameters of all rooms share."""

from typing import Final

TEXT: Final = r"^[^\x00-\x1f\x7f]*$"
"""A pattern for text that is stored. It allows no control characters: PostgreSQL refuses a NUL."""
