"""The commands of `cloudml`, one module each: `add_arguments(parser)` and `run(args) -> exit code`."""
