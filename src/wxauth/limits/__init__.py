"""The limits on the rate of requests, and on the number of requests that run at the same time."""
