"""Report: results -> a page that explains itself, files for programs, the terminal, a logger."""
