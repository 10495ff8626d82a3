"""The code that every package uses: the clock, logs, encryption of secrets, the database and the audit trail.

Use cases belong to the packages above.
"""
