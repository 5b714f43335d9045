"""What every other part rests on: errors, files, text, locks and what the system does at start-up. Free of torch."""
