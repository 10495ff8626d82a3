"""HTTP for every room: how a request comes in, and how an answer goes out."""
