"""The code that most packages use: the clock, logs, encryption of secrets, the database and the audit trail.

Use cases belong to the packages that import this one, for example to `wxauth.login`.
"""
