"""The command line: one file a verb. Each parses its options and makes one call; heavy imports stay inside it."""
