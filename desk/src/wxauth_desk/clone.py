"""The files of a clone outside the desk's package, some of which an installed desk contains in the folder `_shared`."""

from pathlib import Path
from typing import Final

CLONE: Final = Path(__file__).parents[3]  # for an installed desk, a folder that contains no clone
_IN_WHEEL: Final = Path(__file__).with_name("_shared")


def shared_file(path_in_clone: str, *, name_in_wheel: str) -> Path:
    in_wheel = _IN_WHEEL / name_in_wheel
    return in_wheel if in_wheel.exists() else CLONE / path_in_clone
