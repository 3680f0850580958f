"""What `cloudml check` looks at before a training."""
