import numpy as np

from autograde.feedback import Lost
from autograde.plugin import graded


def draw(rng):
    """x [200, 3] and y [200] of a line with noise, and its weights [4] by least squares."""
    x = rng.normal(size=(200, 3))
    y = x @ rng.uniform(1, 2, 3) + rng.uniform(0.5, 1.5) + 0.1 * rng.normal(size=200)
    return x, y, np.linalg.lstsq(np.column_stack([x, np.ones(200)]), y, rcond=None)[0]


def call(session, name, shape, *numbers, **arrays):
    """What a function of the submission returns, which is of this shape."""
    value = session.request("call", {"name": name, "numbers": numbers}, arrays).array("value")
    if value.shape != shape:
        raise Lost(f"{name} returns shape {shape}", f"shape {value.shape}")
    return value


@graded("1.1")
def test_predict(session, rng):
    x, _, weights = draw(rng)
    value, right = call(session, "predict", (200,), x=x, w=weights), x @ weights[:3] + weights[3]
    if not np.allclose(value, right):
        raise Lost(f"{right[:3]}, ...", f"{value[:3]}, ...", "the intercept is the last weight.")


@graded("1.2")
def test_fit(session, rng):
    x, y, right = draw(rng)
    value = call(session, "fit", (4,), x=x, y=y)
    if not np.allclose(value, right):
        raise Lost(f"weights {right}", value, "x needs a column of ones, for the intercept.")


@graded("1.3")
def test_descend(session, rng, target):
    x, y, _ = draw(rng)
    weights = call(session, "descend", (4,), 100, 0.1, x=x, y=y)
    r2 = 1 - np.mean((y - x @ weights[:3] - weights[3]) ** 2) / np.var(y)
    if not r2 >= target.threshold:
        cause = "a gradient is the mean over all points, not their sum."
        raise Lost(f"R² of {target.threshold}", f"{r2:.2f}", cause, target.fraction(r2))
