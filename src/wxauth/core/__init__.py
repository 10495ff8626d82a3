"""The base of every package: time, logs, encryption of secrets, database and audit trail.

It has no use cases of its own.
"""
