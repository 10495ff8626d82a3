"""Rate limits: by address, by client, and for each person."""
