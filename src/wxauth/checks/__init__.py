"""The health checks of `wxauth check`, which change nothing."""
