"""What `cloudml ensemble` reads, works out, and shows."""
