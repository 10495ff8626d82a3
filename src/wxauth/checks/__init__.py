"""The health checks of `wxauth check`.

No check changes anything, except that the check of `push_forward` stores the signature that it sends, and that the
check of Redis counts once, for a second.
"""
