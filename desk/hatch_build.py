"""Refuse a source distribution, because no wheel could be built from it."""

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelOnly(BuildHookInterface[Any]):
    """Ends the build of a source distribution before it begins."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Say which command builds the wheel, and exit."""
        sys.exit(
            "wxauth-desk has no source distribution, because its wheel contains files from outside this folder. "
            "Build the wheel in a clone with `python -m build --wheel desk`. wxauth-desk 没有源码包，"
            "因为它的 wheel 含有此目录之外的文件。请在克隆的仓库中执行 `python -m build --wheel desk`。"
        )
