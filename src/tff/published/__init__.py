"""What others published, bundled as data: tables of results and rankings of channels."""
