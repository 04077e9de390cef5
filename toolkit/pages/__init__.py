"""What every HTML page is made with: its frame and style, tables, charts. Values are escaped here."""
