"""URLs that may list several hosts, as PostgreSQL's and Redis's do."""

import re
from urllib.parse import SplitResult, urlsplit


def split_hosts(url: str) -> tuple[SplitResult, list[str]]:
    """The parts of a URL, of whose hosts they have the first, and all its hosts, each with its port if it has one.

    A Python with the security fixes of 2025 refuses an IPv6 address in brackets behind another host.
    Raises: ValueError.
    """
    start, slashes, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, listed = authority.rpartition("@")
    hosts = listed.split(",")
    return urlsplit(f"{start}{slashes}{user}{at}{hosts[0]}{rest.removeprefix(authority)}"), hosts
