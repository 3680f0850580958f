"""What `cloudml predict --archive` does: many flights, each exactly once, by workers that may die."""
