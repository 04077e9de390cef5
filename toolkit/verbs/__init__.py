"""The command line's verbs, by what they are about; `toolkit.cli` puts them together."""
