"""The methods, one file each, as their papers write them: plain layers that autograd differentiates."""
