"""What is run: the files under params/, and the experiments they resolve to. Free of torch."""
