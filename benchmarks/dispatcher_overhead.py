"""What a trial costs beyond its own training: this dispatcher and three other ways.

pip install "ray[tune]" hydra-core hydra-joblib-launcher
python -m benchmarks.dispatcher_overhead ROUNDS TRIALS

The same short trainings, two at a time, one thread each, as whole commands, in turn. Overhead is
(2 * wall seconds - all trials' own seconds) / trials: start-up, imports, bookkeeping and waiting. A
trial's own seconds are counted inside of it, from the first line of its training to the last.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
WORKERS = 2
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}

RAY_TUNE = """
import sys, json
from pathlib import Path
from ray import init, tune
init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

def trainable(config):
    from benchmarks.short_trial import train
    return train(config["learning_rate"])

rates = json.loads(sys.argv[1])
tuner = tune.Tuner(
    tune.with_resources(trainable, {"cpu": 1}),
    param_space={"learning_rate": tune.grid_search(rates)},
    tune_config=tune.TuneConfig(max_concurrent_trials=2, metric="loss", mode="min"),
    run_config=tune.RunConfig(storage_path=sys.argv[2], verbose=0),
)
for i, result in enumerate(tuner.fit()):
    folder = Path(sys.argv[2]) / "trials" / str(i)
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"own_seconds": result.metrics["own_seconds"]}))
"""
HYDRA = """
import json
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base=None, config_path=None)
def main(config):
    from benchmarks.short_trial import train
    results = train(config["learning_rate"])
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "results.json").write_text(json.dumps(results))

main()
"""


def dispatcher(rates: list[float], folder: Path) -> None:
    config = folder / "sweep.json"
    script = str(REPO / "benchmarks" / "short_trial.py")
    sweep = {"script": script, "params": {"learning_rate": rates}, "metric": "loss"}
    config.write_text(json.dumps(sweep))
    arguments = ["--config", config, "--output-dir", folder / "out", "--workers", WORKERS]
    _run([REPO / "dispatcher.py", *arguments])


def process_per_trial(rates: list[float], folder: Path) -> None:
    """As the original course's dispatcher does it."""

    def one(rate: float) -> None:
        arguments = ["--learning-rate", rate, "--output-dir", folder / str(rate)]
        _run(["-m", "benchmarks.short_trial", *arguments])

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(one, rates))


def ray_tune(rates: list[float], folder: Path) -> None:
    _run(["-c", RAY_TUNE, json.dumps(rates), folder / "out"])


def hydra_joblib(rates: list[float], folder: Path) -> None:
    script = folder / "app.py"
    script.write_text(HYDRA)
    options = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={WORKERS}"]
    options += [f"hydra.sweep.dir={folder}/out", "hydra/job_logging=none"]
    _run([script, "-m", f"+learning_rate={','.join(map(str, rates))}", *options])


def _run(arguments: list) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=REPO,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def overhead(way, trials: int) -> tuple[float, float, float]:
    """(milliseconds of overhead a trial, own milliseconds a trial, wall seconds)."""
    rates = [round(1e-4 * (i + 1), 6) for i in range(trials)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        way(rates, folder)
        wall = time.monotonic() - began
        results = [json.loads(path.read_text()) for path in folder.rglob("results.json")]
    assert len(results) == trials, (way.__name__, len(results))
    own = sum(result["own_seconds"] for result in results)
    return 1000 * (WORKERS * wall - own) / trials, 1000 * own / trials, wall


def main() -> None:
    rounds, trials = int(sys.argv[1]), int(sys.argv[2])
    ways = [dispatcher, process_per_trial, ray_tune, hydra_joblib]
    figures = {way.__name__: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            figures[way.__name__].append(overhead(way, trials))
            print(
                way.__name__, *(f"{value:.1f}" for value in figures[way.__name__][-1]), flush=True
            )
    print(f"| {trials} trials | overhead, ms a trial | own, ms a trial | wall s | rounds |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in figures.items():
        columns = list(zip(*values, strict=True))
        cells = [
            f"{statistics.median(column):.{digits}f} ({min(column):.{digits}f} to "
            f"{max(column):.{digits}f})"
            for column, digits in zip(columns, (0, 0, 1), strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} | {rounds} |")


if __name__ == "__main__":
    main()
