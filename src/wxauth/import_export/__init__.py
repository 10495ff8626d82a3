"""The import and the export of users."""
