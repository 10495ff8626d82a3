"""The code that most packages use, for example the clock, logs, the database and the audit trail.

This package contains no use cases. They belong to the packages that import it, for example to `wxauth.login`.
"""
