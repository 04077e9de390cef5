"""Templates, style and script of all pages."""
