"""The health checks of `wxauth check`.

Except for a signature that the check of `push_forward` stores, they change nothing.
"""
