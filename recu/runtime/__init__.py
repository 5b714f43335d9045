"""A packed network at work without PyTorch: its file read, its operations in NumPy."""
