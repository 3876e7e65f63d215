"""Pruning and compression of LeNet-300-100 on MNIST, beside published figures, over seeds."""
