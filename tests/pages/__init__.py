"""Report pages in a real browser: `make check-page`."""
