"""Run the predictions: in this process, in worker processes on this machine, or in Ray's on a cluster.

Each worker opens the model once and takes one flight at a time. If a worker dies, only its current flight is affected,
and a new worker repeats it.
"""

import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any, Protocol

from cloudml_tf.inference.archive.work import Job, Outcome, Predictor, Task
from cloudml_tf.utils.errors import ConfigError
from cloudml_tf.utils.threads import THREADS, begin_child, threads_of_children

ATTEMPTS = 2  # for a flight whose worker dies
DEATHS = f"its worker died {ATTEMPTS} times; memory may be short: use fewer --workers."


class Worker(Protocol):
    """A worker with an open model."""

    def submit(self, task: Task) -> "Future[Outcome]":
        """Start a flight. If the worker is gone, the future raises one of the engine's `died` errors."""

    def end(self) -> None:
        """End the worker at once, whatever it is doing."""


def in_this_process(job: Job, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
    """Predict one flight after the other."""
    predictor = Predictor(job)
    yield from map(predictor.predict, tasks)


def share_out(
    tasks: Sequence[Task], start: Callable[[], Worker], count: int, died: tuple[type[Exception], ...]
) -> Generator[Outcome, None, None]:
    """Distribute flights over `count` workers; yield each outcome as soon as it is available."""
    waiting, deaths = deque(tasks), Counter[str]()
    busy: dict[Future[Outcome], tuple[Worker, Task]] = {}
    workers = {start() for _ in range(min(count, len(tasks)))}
    idle = list(workers)
    try:
        while waiting or busy:
            while waiting and idle:
                worker, task = idle.pop(), waiting.popleft()
                busy[_begun(worker, task, died)] = (worker, task)
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                worker, task = busy.pop(future)
                try:
                    outcome = future.result()
                    told = [f"{task.name}: its worker died; another worker repeated it."] if deaths[task.name] else []
                    yield replace(outcome, warnings=[*told, *outcome.warnings])
                except died:
                    worker.end()
                    workers.remove(worker)
                    workers.add(worker := start())
                    deaths[task.name] += 1
                    if deaths[task.name] < ATTEMPTS:
                        waiting.append(task)
                    else:
                        yield Outcome(task.name, 0.0, reason=DEATHS)
                idle.append(worker)
    finally:
        for worker in workers:
            worker.end()


def _begun(worker: Worker, task: Task, died: tuple[type[Exception], ...]) -> "Future[Outcome]":
    """Like `submit`, but an error about a worker that died while idle goes into the future too."""
    try:
        return worker.submit(task)
    except died as error:
        failed: Future[Outcome] = Future()
        failed.set_exception(error)
        return failed


# --- worker processes on this machine


def in_processes(job: Job, tasks: Sequence[Task], workers: int) -> Generator[Outcome, None, None]:
    """Predict in worker processes; several have one thread each, so that they do not compete for cores."""
    threads = 1 if workers > 1 else None
    with threads_of_children(threads):
        one = replace(job, threads=threads)
        yield from share_out(tasks, lambda: ProcessWorker(one), workers, (BrokenProcessPool,))


class ProcessWorker:
    """A pool of one process: if one process of a larger pool dies, all of them end."""

    def __init__(self, job: Job) -> None:
        self.job = job
        context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
        self.leash, theirs = context.Pipe()
        self.pool = ProcessPoolExecutor(1, context, begin_child, (theirs.recv_bytes,))

    def submit(self, task: Task) -> "Future[Outcome]":
        """Start a flight."""
        return self.pool.submit(_predict_here, self.job, task)

    def end(self) -> None:
        """Close the pipe that keeps the process alive: it ends, and its half-written file belongs to nobody."""
        self.leash.close()
        self.pool.shutdown(cancel_futures=True)


_predictors: list[Predictor] = []  # the one that this worker process has opened


def _predict_here(job: Job, task: Task) -> Outcome:
    if not _predictors:
        _predictors.append(Predictor(job))
    return _predictors[0].predict(task)


# --- Ray


def on_ray(job: Job, tasks: Sequence[Task], workers: int) -> Generator[Outcome, None, None]:
    """Predict on the cluster of RAY_ADDRESS, or on this machine. All machines see the same folders by the same
    names."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError("--engine ray needs the package ray. Run `pip install 'cloudml_tf[archive]'`.") from None
    here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
    names = dict.fromkeys(THREADS, "1")
    ray.init(log_to_driver=False, logging_level="error", runtime_env={"env_vars": names}, **here)
    try:
        actor = ray.remote(num_cpus=1)(RayPredictor)
        one = replace(job, threads=1)
        yield from share_out(tasks, lambda: RayWorker(ray, actor, one), workers, (ray.exceptions.RayActorError,))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        ray.shutdown()


class RayPredictor:
    """A predictor in a process of Ray's. The model is opened with the first flight, so that errors are returned."""

    def predict(self, job: Job, task: Task) -> Outcome:
        """Predict one flight."""
        return _predict_here(job, task)


class RayWorker:
    """An actor: a process that Ray starts where resources are free."""

    def __init__(self, ray: Any, actor: Any, job: Job) -> None:
        self.ray, self.actor, self.job = ray, actor.remote(), job

    def submit(self, task: Task) -> "Future[Outcome]":
        """Start a flight."""
        return self.actor.predict.remote(self.job, task).future()

    def end(self) -> None:
        """End the actor at once."""
        self.ray.kill(self.actor)
