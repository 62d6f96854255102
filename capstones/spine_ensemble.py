"""The ensemble of `spine`: fitted on validation images, kept in ensemble.json, and used."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
from pandas import DataFrame

from capstones.checkpoints import best_path
from capstones.network import probabilities
from capstones.spine_networks import BACKBONES, Member
from capstones.spine_scores import find_threshold, find_weights, scores, weighted_average
from pathlab.errors import UserError
from pathlab.files import write_json


def trained_members(run: Path, mirrored: bool = True) -> list[Member]:
    """The networks whose checkpoints the run has. Raises UserError where there is none."""
    members = [Member(name, mirrored) for name in BACKBONES if best_path(run, name).exists()]
    if not members:
        raise UserError(f"{run} holds no trained network: train first, or name its --run.")
    return members


def fit_ensemble(
    args: Namespace, members: list[Member], samples: DataFrame, given: list[float] | None = None
) -> None:
    """Write ensemble.json: weights and thresholds from validation images, for all other commands.

    given: the weights, one for each network. Raises UserError for another number of them.
    """
    if given and len(given) != len(members):
        raise UserError(
            f"--weights has {len(given)} numbers for {len(members)} networks "
            f"({', '.join(m.name for m in members)}): give one for each, separated by commas."
        )
    labels = samples["label"].cat.codes.to_numpy()
    found = {m.name: probabilities(m, m.own_args(args), samples) for m in members}
    if given:
        weights = {name: w / sum(given) for name, w in zip(found, given, strict=True)}
    else:
        weights = find_weights(found, labels)
    found["ensemble"] = weighted_average(found, weights)
    thresholds = {name: find_threshold(p, labels)[0] for name, p in found.items()}
    measured = {name: scores(p, labels, thresholds[name]) for name, p in found.items()}
    fitted = {"weights": weights, "thresholds": thresholds, "tta": members[0].mirrored}
    write_json(args.run / "ensemble.json", {**fitted, "validation": measured})
    for name, its in measured.items():
        share = f"weight {weights[name]:.3f}, " if name in weights else ""
        print(
            f"{name}: {share}threshold {thresholds[name]:.3f}, validation AUROC "
            f"{its['auroc']:.4f}, F1 {its['f1_score']:.4f}"
        )


def read_ensemble(run: Path) -> tuple[list[Member], dict]:
    """(networks, what fit_ensemble wrote). Raises UserError where it is missing or damaged."""
    path = run / "ensemble.json"
    try:
        fitted = json.loads(path.read_text())
        if set(fitted["thresholds"]) != {*fitted["weights"], "ensemble"}:
            raise ValueError("a threshold or weight is missing")
        return [Member(name, fitted["tta"]) for name in fitted["weights"]], fitted
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). It is written at the end of `train`, and by "
            "`ensemble`: finish the training, or name the run's folder with --run."
        ) from error


def run_ensemble(
    args: Namespace, members: list[Member], weights: dict[str, float], samples: DataFrame
) -> dict[str, np.ndarray]:
    """Probabilities, float64 [N], of each network and of the ensemble, under that name."""
    found = {m.name: probabilities(m, args, samples) for m in members}
    return {**found, "ensemble": weighted_average(found, weights)}
