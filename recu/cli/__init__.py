"""The command line: one file a subcommand, called as the command, with `add_arguments(parser)` and
`run(arguments)`; the first sentence of its docstring is its help."""
