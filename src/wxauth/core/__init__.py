"""The base of every package: time, logs, encryption of secrets, database and audit trail.

It contains no use cases.
"""
