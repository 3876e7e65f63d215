"""Estimators beside scikit-learn's on its small data sets: scores, times of fits, and losses of lbfgs."""
