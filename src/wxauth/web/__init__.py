"""How a request comes in and an answer goes out, whatever it is about."""
