"""Models, data, processes and the source tree, as tests of several packages take them."""
