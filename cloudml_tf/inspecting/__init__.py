"""What `cloudml init --from` looks at in instrument files, and the configuration it proposes. No Keras."""
