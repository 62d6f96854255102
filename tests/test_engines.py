"""The engines: the same calls, and the same sweep, on this machine, on Ray and by submitit."""

import json
import os
import re
import shutil
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import pytest
from conftest import assert_user_error, run_script
from test_dispatcher import rows, table

from pathlab.engines import open_engine
from pathlab.errors import UserError

SUBMITIT = ("--engine", "slurm", "--slurm", "cluster=local")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of Ray with one core each, as processes of this machine."""
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def settings(name: str, request) -> dict:
    if name == "ray":
        return {"address": request.getfixturevalue("cluster").address}
    if name == "slurm":
        pytest.importorskip("submitit", reason="submitit is not installed")
        return {"options": {"cluster": "local"}}
    return {}


@pytest.mark.parametrize("name", ["local", "ray", "slurm"])
def test_calls_run_side_by_side_and_their_errors_come_back(name, request, tmp_path):
    engine = open_engine(name, 2, tmp_path, **settings(name, request))
    try:
        powers = [engine.submit(pow, 2, n) for n in range(3)]
        wrong = engine.submit(json.loads, "{")
        began = time.time()
        naps = [engine.submit(time.sleep, 3) for _ in range(2)]
        assert [future.result(60) for future in powers] == [1, 2, 4]
        with pytest.raises(Exception, match="Expecting property name"):
            wrong.result(60)
        if name != "local":
            assert not any(nap.cancel() for nap in naps), "a cluster takes no call back"
        wait(naps, 60)
        assert all(nap.done() and nap.exception() is None for nap in naps)
        assert time.time() - began >= 3
    finally:
        engine.shutdown(wait=True)


def test_an_engine_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"'condor': choose one of local, ray, slurm"):
        open_engine("condor", 1, tmp_path)
    pytest.importorskip("submitit", reason="submitit is not installed")
    if shutil.which("srun") is None:
        with pytest.raises(UserError, match="SLURM cannot be used here"):
            open_engine("slurm", 1, tmp_path)


def test_a_job_that_slurm_refuses_is_told_in_its_words(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed")
    for name, body in {"srun": "", "sbatch": 'cat "$1" >&2; exit 1'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    engine = open_engine("slurm", 1, tmp_path, gpus=0.5)
    with pytest.raises(UserError, match="SLURM refuses the job") as refused:
        engine.submit(pow, 2, 3)
    engine.shutdown()
    assert "--gpus-per-node=1" in str(refused.value), "half a GPU is a whole one there"


def test_a_slurm_job_may_end_while_the_engine_is_shut_down(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed")
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    engine = open_engine("slurm", 1, tmp_path, options={"cluster": "local"})

    class Job:
        def done(self) -> bool:
            engine.shutdown(wait=False, cancel_futures=True)
            return True

        def cancel(self) -> None:
            pass

    monkeypatch.setattr(engine._executor, "submit", lambda function: Job())
    engine.submit(time.time)
    engine._watcher.join(20)
    assert not engine._watcher.is_alive() and not raised


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A sweep's file and its script, and in `local` what the local engine made of it."""
    folder = tmp_path_factory.mktemp("engines")
    shutil.copy(Path(__file__).with_name("toy.py"), folder)
    params = {"model": ["a", "b"], "x": [0.1, 0.3], "end": ["well", "raise"], "nap": 0.2}
    sweep = {"script": "toy.py", "params": params, "metric": "best_value"}
    (folder / "sweep.json").write_text(json.dumps(sweep))
    done = dispatch(folder, "local")
    assert done.returncode == 1
    return folder


def dispatch(folder: Path, out: str, *arguments):
    arguments = ("--config", "sweep.json", "--output-dir", out, "--workers", "2", *arguments)
    return run_script("dispatcher.py", *arguments, cwd=folder)


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_gives_the_same_table(folder, cluster):
    done = dispatch(folder, "ray", "--engine", "ray", "--address", cluster.address)
    assert done.returncode == 1, done.stderr
    assert table(folder / "ray") == table(folder / "local")
    assert len(rows(folder / "ray")) == 8
    logs = [path.read_text() for path in (folder / "ray").glob("trials/*/log.txt")]
    servers = {re.search(r"started by (\d+)", log)[1] for log in logs}
    assert len(servers) == 2, "both nodes worked, each with a server of its own"


@pytest.mark.slow
def test_submitit_gives_the_same_table(folder):
    pytest.importorskip("submitit", reason="submitit is not installed")
    done = dispatch(folder, "slurm", *SUBMITIT)
    assert done.returncode == 1, done.stderr
    assert table(folder / "slurm") == table(folder / "local")


def test_a_cluster_that_does_not_answer(folder):
    pytest.importorskip("ray", reason="Ray is not installed")
    done = dispatch(folder, "nowhere", "--engine", "ray", "--address", "127.0.0.1:9")
    assert_user_error(done, "127.0.0.1:9", "cannot be reached")
