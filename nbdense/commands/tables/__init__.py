"""Tables of data: read from files, their columns' kinds found, their cells made numbers and text."""
