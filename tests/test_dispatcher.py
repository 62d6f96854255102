"""Sweeps as real processes: what they run and leave, and that nothing stops them for good."""

import contextlib
import csv
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from conftest import REPO, assert_user_error, command, environment, hear_ctrl_c, run_script

import dispatcher
from pathlab.errors import UserError
from pathlab.sweep.trial import STOPPED, Trial, run_trial

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of a Unix system")
XS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
GRID = {"model": ["a", "b"], "x": XS}


@pytest.fixture
def sweep(tmp_path):
    """sweep(**what of the file differs) writes the file and returns its path."""
    shutil.copy(Path(__file__).with_name("toy.py"), tmp_path)

    def write(name: str = "sweep", **changes) -> Path:
        content = {"script": "toy.py", "params": GRID, "metric": "best_value", **changes}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
        return path

    return write


def dispatch(config: Path, *arguments, out: str = "out") -> subprocess.CompletedProcess:
    """The dispatcher in this process, in the folder of the file; the scripts are processes."""
    said, told, here = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(config.parent)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
            words = ["--config", str(config), "--output-dir", out, *map(str, arguments)]
            code = dispatcher.main(words)
    except UserError as error:
        code = 2
        told.write(f"error: {error}")
    except SystemExit as end:  # argparse
        code = end.code
    finally:
        os.chdir(here)
    return subprocess.CompletedProcess(words, code, said.getvalue(), told.getvalue())


def start(config: Path, *arguments) -> subprocess.Popen:
    arguments = ("--config", config, "--output-dir", "out", "--workers", "2", *arguments)
    return subprocess.Popen(
        command("dispatcher.py", *arguments),
        cwd=config.parent,
        env=environment(HOME=f"{config.parent}-home"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )


def rows(folder: Path) -> list[dict]:
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def table(folder: Path) -> list[tuple]:
    """What does not depend on the machine: everything but the seconds."""
    return sorted(tuple(v for k, v in row.items() if k != "seconds") for row in rows(folder))


def expected(model: str, x: float, seed: int = 0) -> float:
    return 1 - (x - 0.3) ** 2 + 0.1 * (model == "b") + 0.001 * seed


def logs(folder: Path) -> dict[str, int]:
    """How often each trial was started."""
    return {p.parent.name: p.read_text().count("started") for p in folder.glob("trials/*/log.txt")}


# ---- what runs, and what it leaves ----


def test_a_grid_runs_every_combination_once(sweep, tmp_path):
    done = dispatch(sweep(), "--workers", "2")
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "out")
    assert list(found[0]) == ["trial", "model", "x", "best_value", "state", "seconds"]
    assert [(r["model"], float(r["x"])) for r in found] == list(itertools.product("ab", XS))
    assert [int(r["trial"]) for r in found] == list(range(12))
    for row in found:
        assert float(row["best_value"]) == pytest.approx(expected(row["model"], float(row["x"])))
        assert row["state"] == "complete" and float(row["seconds"]) > 0.1
    assert set(logs(tmp_path / "out").values()) == {1}
    assert "best best_value 1.1000: model b, x 0.3" in done.stdout
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


def test_the_same_command_again_repeats_nothing(sweep, tmp_path):
    config = sweep()
    assert dispatch(config).returncode == 0
    before = table(tmp_path / "out")
    done = dispatch(config)
    assert done.returncode == 0 and "best best_value 1.1000" in done.stdout
    assert table(tmp_path / "out") == before
    assert set(logs(tmp_path / "out").values()) == {1}


def test_every_configuration_runs_with_every_seed(sweep, tmp_path):
    config = sweep(params={"x": [0.1, 0.3]}, seeds=[3, 5, 8])
    done = dispatch(config)
    found = rows(tmp_path / "out")
    assert [(float(r["x"]), int(r["seed"])) for r in found] == list(
        itertools.product([0.1, 0.3], [3, 5, 8])
    )
    for row in found:
        value = expected("a", float(row["x"]), int(row["seed"]))
        assert float(row["best_value"]) == pytest.approx(value)
    assert "1.0053 (seeds: 1.0030, 1.0050, 1.0080): x 0.3" in done.stdout
    study = optuna.load_study(study_name="toy", storage=journal(tmp_path / "out"))
    assert study.best_value == pytest.approx((1.003 + 1.005 + 1.008) / 3)


def journal(folder: Path) -> optuna.storages.BaseStorage:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.log"))
    return optuna.storages.JournalStorage(backend)


def test_the_study_is_optunas(sweep, tmp_path):
    dispatch(sweep())
    study = optuna.load_study(study_name="toy", storage=journal(tmp_path / "out"))
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 12
    assert study.best_params == {"model": "b", "x": 0.3}
    assert study.direction.name == "MAXIMIZE"


def test_random_search_takes_different_points_and_the_same_ones_next_time(sweep, tmp_path):
    for out in ("one", "two"):
        arguments = ("--search", "random", "--trials", "7")
        assert dispatch(sweep(), *arguments, out=out).returncode == 0
    assert table(tmp_path / "one") == table(tmp_path / "two")
    points = {(row["model"], row["x"]) for row in rows(tmp_path / "one")}
    assert len(points) == 7
    assert dispatch(sweep(), "--search", "random", "--trials", "99", out="one").returncode == 0
    assert len(rows(tmp_path / "one")) == 12, "more trials are an allowed change; here are only 12"
    done = dispatch(sweep(), *arguments, "--search-seed", "1", out="three")
    assert {(r["model"], r["x"]) for r in rows(tmp_path / "three")} != points, done.stderr


def test_tpe_finds_a_better_point_in_a_range_than_its_first_ones(sweep, tmp_path):
    config = sweep(params={"x": {"low": -3.0, "high": 3.0}, "epochs": 1, "model": "a"})
    done = dispatch(config, "--search", "tpe", "--trials", "40", "--workers", "2")
    values = [float(row["best_value"]) for row in rows(tmp_path / "out")]
    assert len(values) == 40, done.stderr
    # Ten random points: the best is above 0.99 in four of ten cases. TPE's last ones lie close.
    assert max(values) > 0.99
    assert sum(v > 0.5 for v in values[20:]) > sum(v > 0.5 for v in values[:10])


def test_minimising(sweep, tmp_path):
    config = sweep(params={"x": XS}, direction="minimize")
    assert "best best_value 0.9100: x 0.0" in dispatch(config).stdout


def test_switches_and_fixed_values_reach_the_script(sweep, tmp_path):
    params = {"fast": [True, False], "bias": [True, False], "x-value": 0.2, "device": None}
    assert dispatch(sweep(params=params)).returncode == 0
    seen = [p.read_text() for p in sorted((tmp_path / "out").glob("trials/*/log.txt"))]
    for text, (fast, bias) in zip(seen, itertools.product((True, False), repeat=2), strict=True):
        assert f"fast={fast}" in text and f"bias={bias}" in text and "x=0.2" in text
        assert "device=None" in text


def test_two_parts_share_the_workers(sweep, tmp_path):
    parts = [
        {"name": "first", "script": "toy.py", "params": {"x": [0.1]}, "metric": "best_value"},
        {"name": "second", "script": "toy.py", "params": {"model": ["b"]}, "metric": "seed"},
    ]
    config = tmp_path / "two.json"
    sweep()
    config.write_text(json.dumps({"parts": parts}))
    done = dispatch(config)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "out")
    assert [(r["part"], r["x"], r["model"]) for r in found] == [
        ("first", "0.1", ""),
        ("second", "", "b"),
    ]


def test_devices_are_shared_out(sweep, tmp_path):
    done = dispatch(sweep(), "--devices", "cuda:0,cuda:1", "--per-device", "2")
    assert done.returncode == 0, done.stderr
    used = [p.read_text() for p in (tmp_path / "out").glob("trials/*/log.txt")]
    counts = [sum(f"device='cuda:{n}'" in text for text in used) for n in (0, 1)]
    assert sum(counts) == 12 and min(counts) >= 3


@pytest.mark.parametrize("engine", ["ray", "slurm"])
def test_on_a_cluster_the_devices_are_only_counted(engine):
    words = ["--config", "x", "--engine", engine, "--devices", "cuda:0,cuda:1", "--per-device", "2"]
    assert dispatcher._slots(dispatcher.build_parser().parse_args(words)) == ["cuda"] * 4


def test_a_script_may_have_another_encoding(sweep, tmp_path):
    path = tmp_path / "toy.py"
    path.write_bytes(b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + path.read_bytes())
    done = dispatch(sweep(params={"x": [0.1]}))
    assert done.returncode == 0, done.stderr


def test_a_script_of_torch_is_not_imported_anew_and_gets_its_share_of_threads(sweep, tmp_path):
    (tmp_path / "toy.py").write_text(
        "import argparse, json, os, sys, torch\n"
        "parser = argparse.ArgumentParser()\n"
        "for flag in ('--x', '--output-dir'): parser.add_argument(flag)\n"
        "args = parser.parse_args()\n"
        "known = {'threads': torch.get_num_threads(), 'parent': os.getppid(),\n"
        "         'first': torch.rand(()).item(), 'state': hasattr(torch, 'left_behind')}\n"
        "torch.left_behind = True\n"
        "json.dump({'best_value': 1.0, **known}, open(args.output_dir + '/results.json', 'w'))\n"
    )
    config = sweep(params={"x": [1, 2, 3, 4]})
    assert dispatch(config, "--workers", "2", "--threads", "2").returncode == 0
    found = [json.loads(p.read_text()) for p in (tmp_path / "out").glob("trials/*/results.json")]
    assert {f["threads"] for f in found} == {2}
    assert len({f["parent"] for f in found}) == 1, "all were forked from one process"
    assert len({f["first"] for f in found}) == 1, "as in four fresh interpreters"
    assert not any(f["state"] for f in found)


# ---- trials that go wrong ----


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("raise", "ValueError: a mistake in the script"),
        ("segfault", "SIGSEGV"),
        ("kill", "SIGKILL"),
    ],
)
def test_a_crash_costs_one_trial_alone_and_is_repeated_next_time(sweep, tmp_path, end, told):
    config = sweep(params={"x": [0.1, 0.2], "end": [end, "well"]})
    done = dispatch(config, "--workers", "2")
    assert done.returncode == 1
    assert told in done.stderr
    states = [(row["end"], row["state"]) for row in rows(tmp_path / "out")]
    assert sorted(states) == [
        (e, s) for e, s in sorted([(end, "failed"), ("well", "complete")] * 2)
    ]
    failed = json.loads((tmp_path / "out/trials/toy-0000/trial.json").read_text())
    assert told in failed["error"] and "started" in failed["error"]
    # The script is fixed; the same command does what is missing.
    path = tmp_path / "toy.py"
    path.write_text(path.read_text().replace("args = parser.parse_args()", SANE))
    done = dispatch(config, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert {row["state"] for row in rows(tmp_path / "out")} == {"complete"}
    assert logs(tmp_path / "out")["toy-0001"] == 1
    study = optuna.load_study(study_name="toy", storage=journal(tmp_path / "out"))
    assert sorted(t.state.name for t in study.trials) == ["COMPLETE"] * 4 + ["FAIL"] * 2


def test_the_best_is_the_reports_among_those_with_the_most_seeds(sweep, tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(path.read_text().replace("args = parser.parse_args()", ONE_SEED_FAILS))
    done = dispatch(sweep(params={"x": [0.1, 0.3]}, seeds=2))
    assert done.returncode == 1
    assert "best best_value 1.0000 (seeds: 1.0000): x 0.3" in done.stdout


ONE_SEED_FAILS = "args = parser.parse_args()\n    assert args.seed == 0"
SANE = "args = parser.parse_args()\n    args.end = 'well'"


@pytest.fixture
def trial(tmp_path):
    """trial(source): of a script with this source, which takes no --resume."""

    def make(source: str) -> Trial:
        (tmp_path / "script.py").write_text(source)
        return Trial(
            part="part",
            number=0,
            seed=None,
            params={},
            metric="value",
            script=str(tmp_path / "script.py"),
            arguments=[],
            folder=str(tmp_path / "trials" / "part-0000"),
            cwd=str(tmp_path),
            threads=1,
            resumable=False,
        )

    return make


def test_a_trial_that_is_just_starting_can_be_stopped(trial):
    hanging = trial("import time\ntime.sleep(1000)\n")
    hanging.stop(STOPPED)  # before it has a folder
    assert run_trial(hanging)["state"] == STOPPED
    assert not hanging.stop_file.exists()


def test_results_that_are_no_object_are_a_failure_in_words(trial):
    ended = run_trial(
        trial(
            "import sys\n"
            "open(sys.argv[1].removeprefix('--output-dir=') + '/results.json', 'w').write('[1, 2]')"
        )
    )
    assert ended["state"] == "failed"
    assert ended["error"] == "results.json should hold an object with 'value', not [1, 2]"


def test_pruning_stops_what_is_worse_and_keeps_the_best(sweep, tmp_path):
    params = {"x": [0.3, 0.25, 0.35, 0.2, 9.0, 8.0, 7.0, 6.0], "nap": 0.12, "epochs": 15}
    done = dispatch(sweep(params=params), "--pruner", "median", "--workers", "2")
    assert done.returncode == 0, done.stderr
    states = {float(row["x"]): row["state"] for row in rows(tmp_path / "out")}
    assert [x for x, state in states.items() if state == "pruned"] == [9.0, 8.0, 7.0, 6.0]
    assert states[0.3] == "complete"
    study = optuna.load_study(study_name="toy", storage=journal(tmp_path / "out"))
    pruned = [t for t in study.trials if t.state.name == "PRUNED"]
    assert len(pruned) == 4 and all(t.intermediate_values for t in pruned)
    before = table(tmp_path / "out")
    assert dispatch(sweep(params=params), "--pruner", "median").returncode == 0
    assert table(tmp_path / "out") == before
    assert set(logs(tmp_path / "out").values()) == {1}


# ---- interruptions ----


def processes_of(folder: Path) -> list[int]:
    """Of all processes that name the folder in their command line or work in one of its trials."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(link) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        if any(link.startswith(str(folder)) for link in links):
            found.append(int(entry.name))
    return found


def no_process_is_left(folder: Path, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not processes_of(folder):
            return True
        time.sleep(0.05)
    return False


def wait_for(condition, process: subprocess.Popen, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(sweep, tmp_path):
    config, out = sweep(params={**GRID, "nap": 0.15}), tmp_path / "out"
    process = start(config)
    wait_for(lambda: len(list(out.glob("trials/*/trial.json"))) >= 3, process)
    time.sleep(0.7)  # in the middle of the next ones
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "The same command again goes on" in said and "Traceback" not in said
    assert no_process_is_left(out)
    finished = {p: p.stat().st_mtime_ns for p in out.glob("trials/*/trial.json")}
    assert 3 <= len(finished) < 12
    assert len(rows(out)) == len(finished)
    done = dispatch(config, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert len(rows(out)) == 12 and {row["state"] for row in rows(out)} == {"complete"}
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())
    resumed = [p for p in out.glob("trials/*/log.txt") if "resume=True" in p.read_text()]
    assert resumed, "what ran was taken up again where it was"


def test_trials_that_were_deleted_run_again(sweep, tmp_path):
    config, out = sweep(params={"x": [0.1, 0.2, 0.3]}, seeds=2), tmp_path / "out"
    assert dispatch(config).returncode == 0
    before = table(out)
    (out / "trials/toy-0000-seed1/trial.json").unlink()
    shutil.rmtree(out / "trials/toy-0002-seed0")
    kept = complete(out)
    done = dispatch(config)
    assert done.returncode == 0, done.stderr
    assert table(out) == before and len(before) == 6
    assert len(kept) == 4 and all(path.stat().st_mtime_ns == then for path, then in kept.items())
    study = optuna.load_study(study_name="toy", storage=journal(out))
    assert len(study.trials) == 5, "two configurations of the three were asked for again"


KILLED_SWEEPS = [
    pytest.param(seed, marks=[pytest.mark.slow] if seed >= 1 else []) for seed in range(20)
]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("seed", KILLED_SWEEPS)
def test_killed_at_random_moments_it_loses_and_repeats_nothing(sweep, tmp_path, seed):
    """SIGKILL for the dispatcher, for the process that forks trials, for a trial, or for all."""
    rng = random.Random(seed)
    config, out = sweep(params={**GRID, "nap": 0.03}, seeds=2), tmp_path / "out"
    kinds = []
    for _ in range(3):
        process = start(config)
        time.sleep(rng.uniform(0.5, 4.5))
        kind = rng.choice(["dispatcher", "server", "trial", "all"])
        kinds.append(kind)
        finished = complete(out)
        if kind in ("dispatcher", "all"):
            process.kill()
        for pid in rng.sample(victims := processes_of(out), len(victims)):
            if pid != process.pid and (kind == "all" or (kind == "trial" and pid == victims[-1])):
                kill(pid)
        if kind == "server":
            for pid in children(process.pid):
                kill(pid)
        process.communicate(timeout=120)
        assert no_process_is_left(out)
        assert all(path.stat().st_mtime_ns == then for path, then in finished.items())
    done = dispatch(config, "--workers", "2")
    assert done.returncode == 0, done.stderr
    found = rows(out)
    points = [(r["model"], float(r["x"]), int(r["seed"])) for r in found]
    assert points == list(itertools.product("ab", XS, [0, 1])), kinds
    for row, point in zip(found, points, strict=True):
        assert float(row["best_value"]) == pytest.approx(expected(*point))
        assert row["state"] == "complete"
    assert "best best_value 1.1005 (seeds: 1.1000, 1.1010): model b, x 0.3" in done.stdout
    study = optuna.load_study(study_name="toy", storage=journal(out))
    assert sum(t.state.name == "COMPLETE" for t in study.trials) == 12


def complete(out: Path) -> dict[Path, int]:
    """When the trials that are complete were written down."""
    found = {}
    for path in out.glob("trials/*/trial.json"):
        if json.loads(path.read_text())["state"] == "complete":
            found[path] = path.stat().st_mtime_ns
    return found


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


def test_two_dispatchers_do_not_share_a_folder(sweep, tmp_path):
    config = sweep(params={"x": [0.1], "end": "hang"})
    process = start(config)
    wait_for(lambda: list((tmp_path / "out").glob("trials/*/log.txt")), process)
    assert_user_error(dispatch(config), "another process is working in", "out")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 130


# ---- mistakes in the file ----


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"params": {"xx": [1]}}, ["toy.py", "'xx'", "Did you mean 'x'?"]),
        ({"params": {"model": ["a", "resnet"]}}, ["invalid choice", "resnet"]),
        ({"params": {"x": ["wide"]}}, ["invalid float value", "wide"]),
        ({"params": {"x": []}}, ["'x'", "empty list"]),
        ({"params": {"x": [0.1, 0.2, 0.1]}}, ["'x'", "0.1 twice"]),
        ({"params": {"x": [1, 1.0]}}, ["twice"]),
        ({"params": {"x": [0.1], "x_value": [0.2]}}, ["same flag"]),
        ({"params": {"x": [[1, 2]]}}, ["'x'", "[1, 2]"]),
        ({"params": {"fast": [1]}}, ["--fast", "switch"]),
        ({"params": {"x": [True]}}, ["--x", "takes a value"]),
        ({"params": {"output-dir": ["here"]}}, ["set by the dispatcher"]),
        ({"params": {"seed": [1]}, "seeds": 2}, ['"seeds"', "not both"]),
        ({"params": [1]}, ['"params"', "object"]),
        ({"params": None}, ['no "params"']),
        ({"seeds": 0}, ['"seeds"']),
        ({"seeds": [1, 1]}, ['"seeds"']),
        ({"metrics": "x"}, ["'metrics'", "'metric'"]),
        ({"metric": None}, ['"metric"']),
        ({"direction": "up"}, ['"direction"']),
        ({"script": "nowhere.py"}, ["nowhere.py", "no such file"]),
        ({"params": {"x": {"low": 2, "high": 1}}}, ["low < high"]),
        ({"params": {"x": {"low": 1, "high": 2}}}, ["no grid", "--search random"]),
    ],
)
def test_mistakes_are_found_before_the_first_trial(sweep, tmp_path, changes, words):
    assert_user_error(dispatch(sweep(**changes)), *words)
    assert not (tmp_path / "out" / "trials").exists()


def test_a_metric_that_the_script_does_not_write_ends_the_sweep(sweep, tmp_path):
    done = dispatch(sweep(metric="val_acc"), "--workers", "1")
    assert_user_error(done, "does not write the metric", "val_acc", "best_value")
    assert len(logs(tmp_path / "out")) <= 3


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"params": {"x": [1], "x": [2]}}'])
def test_files_that_are_no_sweep(sweep, tmp_path, text):
    config = sweep()
    config.write_text(text)
    assert_user_error(dispatch(config), "sweep")
    assert_user_error(dispatch(tmp_path / "none.json"), "none.json", "cannot be read")


def test_a_changed_file_does_not_mix_with_an_old_folder(sweep, tmp_path):
    dispatch(sweep(params={"x": [0.1]}))
    done = dispatch(sweep(params={"x": [0.1, 0.2]}))
    assert_user_error(done, "other settings", "x was [0.1], is [0.1, 0.2]", "another --output-dir")
    assert_user_error(dispatch(sweep(params={"x": [0.1]}), "--search", "tpe"), "search was grid")
    assert len(rows(tmp_path / "out")) == 1


def test_another_order_of_the_parameters_is_another_grid(sweep, tmp_path):
    dispatch(sweep(params={"x": [0.1], "model": ["a"]}))
    done = dispatch(sweep(params={"model": ["a"], "x": [0.1]}))
    assert_user_error(done, "the order of params was x, model, is model, x", "Undo the change")


def test_a_refused_search_is_not_remembered(sweep):
    config = sweep(params={"x": {"low": 0.0, "high": 1.0}, "epochs": 1})
    assert_user_error(dispatch(config), "no grid")
    done = dispatch(config, "--search", "random", "--trials", "1")
    assert done.returncode == 0, done.stderr


def test_a_script_that_stops_before_its_parser_and_one_without_output_dir(sweep, tmp_path):
    path = tmp_path / "toy.py"
    path.write_text("import argparse, nothing_of_that_name\n")
    assert_user_error(dispatch(sweep()), "before it parsed", "nothing_of_that_name")
    path.write_text("import argparse\nargparse.ArgumentParser().parse_args()\n")
    assert_user_error(dispatch(sweep()), "--output-dir")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--workers", "0"),
        ("--engine", "kubernetes"),
        ("--devices", "cuda:0,", "--per-device", "2"),
        ("--devices", "cuda:0", "--workers", "3"),
        ("--slurm", "partition"),
    ],
)
def test_flags_that_cannot_be(sweep, tmp_path, arguments):
    assert_user_error(dispatch(sweep(), *arguments), arguments[0])


# ---- the repository's own scripts ----


def test_the_original_courses_file_and_flags(tmp_path, tissue_npz):
    config = tmp_path / "grid.json"
    params = {"learning_rate": [0.001, 0.01], "model_name": ["linear"], "max_steps": 2}
    config.write_text(json.dumps({**params, "no_plots": True, "dataset": str(tissue_npz)}))
    arguments = ("--config_path", config, "--log_dir", "logs", "--num_workers", "1")
    done = run_script(
        "dispatcher.py", *arguments, "--grid_search_results_path", "grid.csv", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "logs")
    assert [float(row["learning_rate"]) for row in found] == [0.001, 0.01]
    results = json.loads(
        (tmp_path / "logs/trials/classification_main-0001/results.json").read_text()
    )
    assert float(found[1]["best_val_acc"]) == results["best_val_acc"]
    assert (tmp_path / "grid.csv").read_bytes() == (tmp_path / "logs/results.csv").read_bytes()


@pytest.mark.parametrize("file", sorted((REPO / "sweeps").glob("*.json")), ids=lambda p: p.stem)
def test_the_ready_made_sweeps_are_accepted(file, tmp_path):
    from pathlab.sweep.config import read_parts
    from pathlab.sweep.parser import check_part

    for part in read_parts(file):
        check_part(part, tmp_path, ["output_dir", "seed"], threads=1)
        assert part.resumable
        assert len(part.grid()) * len(part.seeds) <= 100, "a night's work on a laptop"
        assert part.arguments(part.grid()[0], 0)[-2:] == ["--seed", "0"]


def test_the_ready_made_sweeps_are_those_of_the_guide():
    guide = (REPO / "docs" / "dispatcher.md").read_text()
    named = guide.split("`sweeps/` has the questions")[1].split("\n\n")[0]
    assert {p.stem for p in (REPO / "sweeps").glob("*.json")} == set(re.findall(r"`(\w+)`", named))
