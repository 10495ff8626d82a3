"""`wxauth check`: the health checks. They change nothing."""
