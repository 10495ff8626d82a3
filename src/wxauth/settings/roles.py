"""The rules for roles, and for the names of users' attributes."""

import re
from typing import Annotated, Final

from pydantic import StringConstraints

ROLE: Final = "[a-z][a-z0-9_-]{0,31}"
"""The pattern of a role, without anchors, so that `re.fullmatch` can also use it."""
Role = Annotated[str, StringConstraints(pattern=f"^{ROLE}$")]
MAX_ROLES: Final = 32
"""The maximum number of roles that a user can have."""
STAFF_ROLES: Final = frozenset({"admin", "support"})
"""The roles that allow access to other people's data. Only an administrator or a command can assign them."""
ATTRIBUTE_NAME: Final = re.compile("[a-z][a-z0-9_]{0,31}")
"""The pattern of the name of an attribute, for example `level`."""
