"""Where work runs: this machine, a Ray cluster or SLURM, always as a concurrent.futures.Executor.

    with open_engine("local", workers=2, folder=Path("sweep")) as engine:
        future = engine.submit(function, argument)

What is submitted is a module's function with plain arguments, which does its work in a process of
its own and waits for it, so that a crash costs that call alone. All machines see the same files and
have this repository at the same path. On this machine a call that is cancelled before it began does
not run; on Ray and SLURM no single call can be cancelled. Stop one that runs by the means that it
offers itself. What a call raises comes out of its future; SLURM wraps it in submitit's
FailedJobError.
"""

import argparse
import math
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pathlab.errors import UserError

ENGINES = ("local", "ray", "slurm")
REPO = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.2
CONNECT_SECONDS = 5.0


def open_engine(
    engine: str,
    workers: int,
    folder: Path,
    *,
    threads: int = 1,
    gpus: float = 0,
    address: str | None = None,
    options: dict | None = None,
) -> Executor:
    """An executor that runs `workers` calls at a time on this machine.

    Ray on this machine is started with cores for so many. A running Ray cluster and SLURM are
    handed all calls at once and decide themselves how many run: submit no more than should.

    threads, gpus: what one call is given on a cluster (SLURM rounds a share of a GPU up).
    folder: where the engine may keep its own files. address: of a running Ray cluster; None starts
    Ray on this machine. options: submitit's parameters for SLURM, such as {"slurm_partition": "a",
    "timeout_min": 60}; {"cluster": "local"} uses submitit without SLURM. Raises UserError where the
    engine is not installed or cannot be reached.
    """
    if engine == "local":
        return ThreadPoolExecutor(workers)
    if engine == "ray":
        return RayExecutor(workers, threads, gpus, address)
    if engine == "slurm":
        return SlurmExecutor(workers, folder / "slurm", threads, gpus, options or {})
    raise UserError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}.")


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """--engine, --address and --slurm, as `open_engine` and `slurm_options` take them."""
    add = parser.add_argument
    add(
        "--engine",
        choices=ENGINES,
        default="local",
        help="where work runs; a cluster decides how much runs at a time (default: local)",
    )
    add("--address", help="address of a running Ray cluster (default: start Ray on this machine)")
    add(
        "--slurm",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of submitit, such as slurm_partition=gpu; cluster=local needs no SLURM",
    )


def slurm_options(pairs: list[str]) -> dict[str, str | int]:
    """The values of --slurm as submitit's parameters. Raises UserError unless NAME=VALUE."""
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UserError(f"--slurm {pair} should be NAME=VALUE, such as slurm_partition=gpu.")
        options[name] = int(value) if value.isdigit() else value
    return options


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class RayExecutor(Executor):
    """Calls as Ray tasks. A worker process of Ray takes one call after the other."""

    def __init__(self, workers: int, threads: int, gpus: float, address: str | None):
        ray = _import("ray", "ray")
        if address:
            _check_listening(address)
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
        size = {} if address else {"num_cpus": workers * threads}
        try:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                configure_logging=True,
                logging_level="ERROR",
                runtime_env={"env_vars": {"PYTHONPATH": str(REPO)}},
                **size,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"the Ray cluster at {address}" if address else "Ray on this machine"
            raise UserError(f"{where} cannot be used: {error}") from error
        self._ray = ray
        self._task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(_call)

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Hand one call to Ray."""
        future: Future = Future()
        future.set_running_or_notify_cancel()  # Ray's own future would let itself be cancelled
        self._task.remote(function, args, kwargs).future().add_done_callback(
            lambda ended: _hand_on(ended, future)
        )
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave Ray; calls that still run are ended."""
        self._ray.shutdown()


class SlurmExecutor(Executor):
    """Calls as SLURM jobs, by submitit. SLURM itself decides how many run at a time."""

    def __init__(self, workers: int, folder: Path, threads: int, gpus: float, options: dict):
        submitit = _import("submitit", "submitit")
        options = dict(options)
        cluster = options.pop("cluster", "slurm")
        # Jobs inherit it, and find `pathlab` wherever the command was typed.
        paths = [str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self._executor.update_parameters(
                **{"cpus_per_task": threads, "gpus_per_node": math.ceil(gpus), "timeout_min": 240}
                | options
            )
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise UserError(
                f"SLURM cannot be used here: {error}. Run this where `sbatch` works, or use "
                "--engine local."
            ) from error
        self._jobs: dict[Future, Any] = {}  # submitit's
        self._changed = threading.Condition()
        self._closed = False
        self._watcher = threading.Thread(target=self._watch, name="slurm", daemon=True)
        self._watcher.start()

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Hand one call to SLURM as a job. Raises UserError where SLURM refuses it."""
        future: Future = Future()
        try:
            job = self._executor.submit(function, *args, **kwargs)
        except (RuntimeError, OSError) as error:  # submitit's errors are RuntimeErrors
            raise UserError(f"SLURM refuses the job: {error}") from error
        future.set_running_or_notify_cancel()
        with self._changed:
            self._jobs[future] = job
            self._changed.notify()
        return future

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                jobs = dict(self._jobs)
            for future, job in jobs.items():
                if not job.done():
                    continue
                with self._changed:
                    if self._jobs.pop(future, None) is None:  # `shutdown` has cancelled it
                        continue
                try:
                    future.set_result(job.result())
                except BaseException as error:  # whatever the call or submitit raised
                    future.set_exception(error)
            with self._changed:
                self._changed.wait(POLL_SECONDS)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; cancel_futures: also end the jobs that wait or run."""
        with self._changed:
            if cancel_futures:
                for job in self._jobs.values():
                    job.cancel()
                self._jobs.clear()
            self._closed = True
            self._changed.notify()
        if wait:
            self._watcher.join()


def _check_listening(address: str) -> None:
    """Ray itself tries for minutes. Raises UserError where nothing listens at HOST:PORT."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto", or a name that Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"the Ray cluster at {address} cannot be reached: {error}. `ray status` prints the "
            "address; leave --address out to start Ray on this machine."
        ) from error


def _hand_on(ended: Future, future: Future) -> None:
    if error := ended.exception():
        future.set_exception(error)
    else:
        future.set_result(ended.result())


def _call(function: Callable, args: tuple, kwargs: dict) -> Any:
    return function(*args, **kwargs)


def _import(name: str, package: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise UserError(
            f"the engine needs {package}, which is not installed: `pip install {package}`."
        ) from error
