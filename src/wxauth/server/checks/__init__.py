"""`wxauth check`: the health checks. They change nothing."""

from wxauth.server.checks.doctor import check_all, check_apps, examine, examine_app
from wxauth.server.checks.result import CheckLevel, CheckResult

__all__ = ["CheckLevel", "CheckResult", "check_all", "check_apps", "examine", "examine_app"]
