"""What a search is, how its trials are dealt out and kept, and what it says. The verb: `cloudml_tf.search`."""
