"""Public sets of images, downloaded and unpacked; `python -m tff.data.download --help`."""
