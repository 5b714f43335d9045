"""The same numbers, faster: compiled loops and bit convolutions."""
