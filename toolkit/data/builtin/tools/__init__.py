"""The built-in tools: one module and one file of phrases for each domain."""

from toolkit.data.builtin.tools import calendar, files, mail, numbers, weather

__all__ = ["calendar", "files", "mail", "numbers", "weather"]
