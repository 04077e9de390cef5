"""A first recipe for a file of data, from what is in it."""
