"""Names and pictures' URLs that users set, and the check of nicknames."""
