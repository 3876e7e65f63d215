"""Tables and pictures of results, on their way into the documentation."""
