"""What was produced: results read and written, sealed, with what they rest on."""
