"""House rules about the source, its documentation and the wheel."""
