"""Users, sessions and logins, counted for each hour."""
