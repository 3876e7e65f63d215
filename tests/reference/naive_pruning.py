"""Pruning, slow and obvious: pieces of kernels, what their loss costs, and schedules."""

import numpy as np


def block_mask(weights, size, sparsity):
    """True where kept: all but the round(sparsity * blocks) blocks of the smallest root mean square."""
    rows, columns = size
    corners = [(i, j) for i in range(0, weights.shape[0], rows) for j in range(0, weights.shape[1], columns)]
    norms = [np.sqrt(np.mean(weights[i : i + rows, j : j + columns] ** 2)) for i, j in corners]
    gone = np.argsort(norms, kind="stable")[: round(sparsity * len(corners))]
    mask = np.ones(weights.shape, bool)
    for number in gone:
        i, j = corners[number]
        mask[i : i + rows, j : j + columns] = False
    return mask


def n_of_m_mask(weights, n, m):
    """True for the n largest of each m inputs of an output."""
    mask = np.zeros(weights.shape, bool)
    for j in range(weights.shape[1]):
        for first in range(0, weights.shape[0], m):
            largest = sorted(range(first, first + m), key=lambda i: -abs(weights[i, j]))[:n]
            mask[largest, j] = True
    return mask


def lamp_scores(weights):
    """Lee et al.'s equation 4: w^2 over the sum of the squares of all weights of at least this magnitude."""
    scores = np.zeros(weights.shape)
    for place in np.ndindex(weights.shape):
        size = abs(weights[place])
        scores[place] = weights[place] ** 2 / sum(w**2 for w in weights.ravel() if abs(w) >= size)
    return scores


def output_error(x, kernel, column, kept):
    """(least squared error of a column's outputs when only ``kept`` inputs have weights, these weights)."""
    wanted = x @ kernel[:, column]
    best, *_ = np.linalg.lstsq(x[:, kept], wanted, rcond=None)
    return float(np.square(x[:, kept] @ best - wanted).sum()), best


def cubic_sparsity(step, begin, end, initial, final):
    """Zhu and Gupta's equation 1."""
    return final + (initial - final) * (1 - (step - begin) / (end - begin)) ** 3
