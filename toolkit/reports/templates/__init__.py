"""Templates, style and script of the reports."""
