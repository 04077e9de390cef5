"""Measures the product's own training path against others, one process a variant, and checks what is said of it."""
