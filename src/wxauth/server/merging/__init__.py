"""Users who are one person: merged, or split again."""
