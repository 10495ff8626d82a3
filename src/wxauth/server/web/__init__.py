"""HTTP for every room: how a request is received, and how an answer is sent."""
