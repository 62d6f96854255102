"""Which configuration comes next: Optuna's samplers, pruners and study, for one part of a sweep.

The study is kept in Optuna's own journal file, so `optuna-dashboard study.log` shows it.
"""

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from pathlab.errors import UserError
from pathlab.sweep.config import Part

NUMBER = "configuration"  # user attribute: our own number, which a repeated configuration keeps
DEFAULT_TRIALS = 20  # of random and tpe

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_storage(file: Path) -> BaseStorage:
    """The journal; call it while holding the sweep's lock. What a killed process left is repaired:
    its lock on the journal, and a last line that it did not finish."""
    file.with_name(file.name + ".lock").unlink(missing_ok=True)
    if file.exists():
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with open(file, "r+b") as journal:
                journal.truncate(whole)
    return JournalStorage(JournalFileBackend(str(file)))


def check_search(part: Part, method: str) -> None:
    """Raise UserError for a search that does not fit the parameters."""
    if method == "grid" and part.has_ranges:
        raise UserError(
            f"{part.name}: a range has no grid; use --search random or tpe, or list its values."
        )


@dataclass
class Configuration:
    """One set of parameters, and its trials: one for each seed."""

    search: "Search"
    number: int
    params: dict[str, Any]
    ended: dict[int | None, dict[str, Any]] = field(default_factory=dict)  # trial.json, by seed
    pruned: bool = False

    @property
    def seeds(self) -> list[int | None]:
        """One for each trial; None leaves it to the script."""
        return [*self.search.part.seeds] or [None]

    def trial_name(self, seed: int | None) -> str:
        """The name of a trial's folder."""
        name = f"{self.search.part.name}-{self.number:04d}"
        return name if seed is None else f"{name}-seed{seed}"


class Search:
    """The configurations of one part, numbered from 0. `resume` comes first.

    method: one that `check_search` has passed. trials: how many configurations; None is the whole
    grid.
    """

    def __init__(
        self,
        part: Part,
        storage: BaseStorage,
        method: str,
        trials: int | None,
        pruner: str,
        seed: int,
    ):
        self.part, self.method, self.seed = part, method, seed
        self.listed: list[dict] | None = None  # all configurations, where that is known beforehand
        if method != "tpe" and not part.has_ranges:
            self.listed = part.grid()
            if method == "random":  # without repetition
                random.Random(seed).shuffle(self.listed)
                trials = DEFAULT_TRIALS if trials is None else trials
            self.listed = self.listed[:trials]
        self.total = len(self.listed) if self.listed is not None else trials or DEFAULT_TRIALS
        self.distributions: dict[str, Any] = {
            name: _distribution(values) for name, values in part.params.items()
        }
        self.study = optuna.create_study(
            storage=storage,
            study_name=part.name,
            direction="minimize" if part.direction == "minimize" else "maximize",
            load_if_exists=True,
            pruner=_pruner(pruner),
        )
        self.open: dict[int, Trial] = {}  # those that the study has no result of, by number
        self.reported: dict[int, int] = {}  # epochs of each that the journal knows
        self.again: list[int] = []  # numbers of configurations that an earlier run has left
        self.results: dict[str, float] = {}  # by parameters: TPE may propose the same twice
        self.count = 0  # of the configurations asked for

    def resume(self, rows: Mapping[int, int]) -> None:
        """Go on where the journal ends: unfinished and failed configurations come again first, and
        those whose trials were deleted.

        rows: by configuration, how many of its trials are complete or pruned.
        """
        needed = {TrialState.COMPLETE: len(self.part.seeds or [None]), TrialState.PRUNED: 1}
        newest, seen = {}, set()
        for frozen in self.study.get_trials(deepcopy=False):
            if NUMBER in frozen.user_attrs:
                newest[frozen.user_attrs[NUMBER]] = frozen
            elif frozen.state == TrialState.RUNNING:  # killed before it got its number
                self.study.tell(frozen.number, state=TrialState.FAIL)
        if any(frozen.state == TrialState.WAITING for frozen in newest.values()):
            self._ask()  # killed before it was taken up; there is one at most
        for number, frozen in sorted(newest.items()):
            point = str(frozen.params)
            # A point that came before may have no trials of its own: see `next`.
            lost = point not in seen and rows.get(number, 0) < needed.get(frozen.state, 0)
            seen.add(point)
            if frozen.state == TrialState.RUNNING:
                trial = self.open[number] = Trial(self.study, frozen._trial_id)
                for name, distribution in self.distributions.items():
                    if name not in frozen.params:  # of a list; it gets the value that it was given
                        trial.suggest_categorical(name, distribution.choices)
                self.reported[number] = len(frozen.intermediate_values)
            elif frozen.state == TrialState.FAIL or lost:
                self._ask(number, frozen.params)
            elif frozen.state == TrialState.COMPLETE:
                self.results[point] = frozen.values[0]
        self.again = sorted(self.open)
        self.count = max(newest, default=-1) + 1

    def next(self) -> Configuration | None:
        """A configuration to run, or None when there is no more."""
        if self.again:
            number = self.again.pop(0)
            return Configuration(self, number, self.open[number].params)
        while self.count < self.total:
            number = self.count
            self.count += 1
            trial = self._ask(number, self.listed[number] if self.listed is not None else None)
            if str(trial.params) not in self.results:
                return Configuration(self, number, trial.params)
            self.tell(number, self.results[str(trial.params)])  # the same again, without the work
        return None

    def _ask(self, number: int | None = None, params: dict | None = None) -> Trial:
        """Open a configuration: these parameters, or what the sampler proposes; without a number,
        the one that waits in the journal."""
        if params is not None:
            self.study.enqueue_trial(params, user_attrs={NUMBER: number})
        elif number is not None:
            self.study.sampler = _sampler(self.method, [self.seed, number])
        trial = self.study.ask(self.distributions)
        if NUMBER not in trial.user_attrs:
            trial.set_user_attr(NUMBER, number)
        number = trial.user_attrs[NUMBER]
        self.open[number], self.reported[number] = trial, 0
        return trial

    def should_prune(self, number: int, values: list[float]) -> bool:
        """Whether a configuration with these values after its epochs is not worth going on."""
        trial = self.open[number]
        new = range(self.reported[number], len(values))
        for epoch in new:
            trial.report(values[epoch], epoch + 1)
        self.reported[number] = max(len(values), self.reported[number])
        return bool(new) and trial.should_prune()

    def tell(self, number: int, value: float | None, pruned: bool = False) -> None:
        """A configuration's mean value over its seeds; None where it failed, or was pruned."""
        trial = self.open.pop(number)
        if pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        elif value is None:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.results[str(trial.params)] = value
            self.study.tell(trial, value)


def _distribution(values: list | dict) -> BaseDistribution:
    if isinstance(values, list):
        return CategoricalDistribution(values)
    whole = type(values["low"]) is type(values["high"]) is int
    kind = IntDistribution if whole else FloatDistribution
    return kind(values["low"], values["high"], log=values["log"])


def _sampler(method: str, seed: list[int]) -> optuna.samplers.BaseSampler:
    """A fresh one for each configuration: what it draws does not depend on interruptions."""
    number = random.Random(str(seed)).getrandbits(31)
    if method == "tpe":
        return optuna.samplers.TPESampler(seed=number, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=number)


def _pruner(name: str) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner()
    return optuna.pruners.NopPruner()
