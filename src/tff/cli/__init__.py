"""The command line: what the two scripts do, and the folders of their runs."""
