"""What `cloudml predict` reads, works out, and writes."""
