"""Benchmarks of the CPU costs of logins, guarded calls and refreshes, compared with other services in one run."""
