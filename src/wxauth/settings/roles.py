"""The rules for roles, and for the names of users' attributes."""

import re
from typing import Annotated, Final

from pydantic import StringConstraints

ROLE_PATTERN: Final = "[a-z][a-z0-9_-]{0,31}"
Role = Annotated[str, StringConstraints(pattern=f"^{ROLE_PATTERN}$")]
MAX_ROLES: Final = 32  # of a user
ADMIN: Final = "admin"
# Support staff may read all users. They may also ban and unban users who are not staff, end these users' sessions, and
# clear their profiles and phones.
SUPPORT: Final = "support"
# These roles give access to other people's data. Only an administrator or a command assigns them.
STAFF_ROLES: Final = frozenset({ADMIN, SUPPORT})
ATTRIBUTE_NAME: Final = re.compile("[a-z][a-z0-9_]{0,31}")
