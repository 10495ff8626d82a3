"""Login, refresh and logout; rate limits; the risk of newcomers; session_keys."""
