"""The commands of `cloudml`, a module each: `add_arguments(parser)` and `run(args) -> exit code`."""
