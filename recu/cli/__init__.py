"""The command line: one file a subcommand, each with `add_arguments(parser)` and `run(arguments)`."""
