"""Files that only their owner can read."""

import os
from pathlib import Path


def store_privately(path: Path, secret: str) -> None:
    """Write a new file that only its owner can read. Raises: OSError, for example if the file exists."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(secret)
