"""What bodies and parameters of every room have in common."""

from typing import Final

TEXT: Final = r"^[^\x00-\x1f\x7f]*$"
"""A pattern for text that is stored: without control characters, of which PostgreSQL refuses a NUL."""
