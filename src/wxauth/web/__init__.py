"""HTTP for every package: how a request is received, and how an answer is sent."""
