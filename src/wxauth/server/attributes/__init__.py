"""The operator's own facts about users."""
