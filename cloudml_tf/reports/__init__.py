"""Pictures, tables and HTML pages."""
