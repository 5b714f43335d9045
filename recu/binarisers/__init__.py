"""The methods of binarisation and what their layers share."""
