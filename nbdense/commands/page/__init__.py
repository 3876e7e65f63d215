"""The report page and its plots, drawn of metrics.json's numbers alone: HTML and SVG without scripts or network."""
