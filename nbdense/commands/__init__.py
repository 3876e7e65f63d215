"""The `nbdense` command and what it runs."""
