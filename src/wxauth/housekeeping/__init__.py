"""The background work that deletes or changes old data, for example expired logins and ended bans."""
