"""How much of the variance between configurations each parameter explains by itself."""

import math
from typing import Any

import numpy as np
import pandas as pd

from pathlab.sweep.config import Part
from pathlab.sweep.tables import finite, key

FEWEST = 6  # configurations; a forest grown on less says nothing
MANY = 150  # configurations, beyond which fewer trees are as steady
REST = "interactions, noise"


def importances(part: Part, table: pd.DataFrame, names: list[str]) -> tuple[dict[str, float], str]:
    """(shares of the variance, what they are in words); no shares where they would mean nothing.

    table: see pathlab.sweep.tables.configurations. Each share is that of a parameter's main effect
    in the variance of the configurations' means, largest first. They do not add up to 1: the rest,
    which comes last, is what only several parameters together explain, and noise.

    Exact on a complete grid. Elsewhere an estimate by Optuna's fANOVA (Hutter et al., ICML 2014),
    for which every listed value, and every stretch of a range, counts the same.
    """
    measured = table[table["n"] > 0]
    left_out = len(table) - len(measured)
    warning = (
        f" {left_out} configurations that were pruned, failed or still run are left out: what "
        "decides which ones are stopped looks less important here than it is."
    )
    warning = warning if left_out else ""
    everywhere = [name for name in names if all(name in params for params in measured["params"])]
    params = pd.DataFrame(
        {n: [params[n] for params in measured["params"]] for n in everywhere}, dtype=object
    )
    keys = params.map(key)
    keys = keys.loc[:, keys.nunique() > 1]
    if len(keys.columns) < 2:
        return {}, "Fewer than two parameters vary among the complete trials." + warning
    means = pd.Series(measured["mean"].to_numpy())
    if means.nunique() == 1:
        return {}, "All configurations have the same value, so no parameter makes a difference."
    if len(keys) == math.prod(keys.nunique()):
        total = means.var(ddof=0)
        shares = {n: means.groupby(keys[n]).mean().var(ddof=0) / total for n in keys}
        text = f"exact on this complete grid of {len(keys)} configurations"
    elif len(keys) < FEWEST:
        return {}, f"{len(keys)} complete configurations are too few; {FEWEST} are needed."
    else:
        shares = _fanova(part, params[keys.columns], means)
        text = f"estimated by fANOVA from {len(keys)} configurations"
        text += ", a rough figure where they are few" if len(keys) < 30 else ""
    shares = dict(sorted(shares.items(), key=lambda pair: -pair[1]))
    shares[REST] = max(0.0, 1 - sum(shares.values()))
    return shares, (
        "The share of the variance between the configurations' means that each parameter explains "
        "by itself, averaged over the others (its main effect); the rest is interactions of "
        f"several parameters, and noise. It is {text}.{warning}"
    )


def _fanova(part: Part, params: pd.DataFrame, means: pd.Series) -> dict[str, float]:
    """Main effects as shares of the variance of a forest, by Optuna."""
    import optuna
    from optuna.distributions import FloatDistribution

    places = pd.DataFrame({name: _places(part, params[name]) for name in params})
    kinds: dict[str, Any] = {
        n: FloatDistribution(places[n].min() - 0.5, places[n].max() + 0.5) for n in places
    }
    for name in places:
        if isinstance(part.params.get(name), dict):
            kinds[name] = FloatDistribution(places[name].min(), places[name].max())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for point, mean in zip(places.to_dict("records"), means, strict=True):
        trial = optuna.trial.create_trial(params=point, distributions=kinds, value=float(mean))
        study.add_trial(trial)
    trees = 64 if len(means) <= MANY else 16
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=0)
    # Not optuna.importance.get_param_importances, which makes the shares add up to 1.
    return {name: float(share) for name, share in evaluator.evaluate(study).items()}


def _places(part: Part, column: pd.Series) -> "np.ndarray | pd.Series":
    """A parameter's values as floats: those of a range where they lie, listed ones a step apart."""
    span: Any = part.params.get(str(column.name))
    if isinstance(span, dict) and all(finite(value) is not None for value in column):
        numbers = column.astype(float)
        return np.log10(numbers) if span.get("log") is True and min(numbers) > 0 else numbers
    return pd.factorize(column.map(key))[0].astype(float)
