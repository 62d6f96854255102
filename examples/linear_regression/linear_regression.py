"""What students write: a line through points, by algebra and by descent. All arrays are float64."""

import numpy as np


def predict(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The values [N] at x [N, D] of the line with weights [D + 1], the intercept last."""
    ### BEGIN SOLUTION
    return x @ weights[:-1] + weights[-1]
    ### END SOLUTION


def fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The weights [D + 1] of least squares for the values y [N] at x [N, D]."""
    ### BEGIN SOLUTION
    return np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
    ### END SOLUTION


def descend(x: np.ndarray, y: np.ndarray, steps: int, rate: float) -> np.ndarray:
    """The weights [D + 1] after gradient descent on the mean squared error, from zero."""
    ### BEGIN SOLUTION
    weights = np.zeros(x.shape[1] + 1)
    for _ in range(steps):
        errors = predict(x, weights) - y
        weights -= rate * 2 * np.append(x.T @ errors, errors.sum()) / len(y)
    return weights
    ### END SOLUTION
