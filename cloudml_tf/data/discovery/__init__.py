"""What `init --from` finds in files of any layout, and the configuration that it proposes."""
