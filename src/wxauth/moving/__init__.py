"""Users who are imported and exported, and the export of a person's own data."""
