"""Is it right: what verification judges, and how to mend what it finds."""
