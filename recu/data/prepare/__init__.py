"""From what a dataset is distributed as to a folder that training reads."""
