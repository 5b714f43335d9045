"""The verbs of the pipeline: input, output and the order of calls, one file a verb."""
