"""The health checks of `wxauth check`.

No check changes anything, except that the check of `push_forward` stores the signature that it sends.
"""
