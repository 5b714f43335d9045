"""Input pipelines on prepared data, one library a file."""
