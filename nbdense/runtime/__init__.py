"""What needs NumPy alone: the numbers of roundings."""
