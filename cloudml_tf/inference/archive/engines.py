"""Who predicts the flights: this process, worker processes on this machine, or Ray's on a cluster.

Each worker opens the model once and takes one flight at a time. One that dies takes its flight along, and no other; a
new one takes it up.
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

ATTEMPTS = 2  # at a flight whose worker dies
DEATHS = f"its worker died {ATTEMPTS} times; memory may be short: fewer --workers."


class Worker(Protocol):
    """One that holds an open model."""

    def submit(self, task: Task) -> "Future[Outcome]":
        """Begin a flight. The future raises what `died` of the engine names where the worker is gone."""

    def end(self) -> None:
        """End it at once, whatever it does."""


def in_this_process(job: Job, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
    """One flight after the other."""
    predictor = Predictor(job)
    yield from map(predictor.predict, tasks)


def share_out(
    tasks: Sequence[Task], start: Callable[[], Worker], count: int, died: tuple[type[Exception], ...]
) -> Generator[Outcome, None, None]:
    """Deal out flights to `count` workers; an outcome as soon as it is there."""
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
                    yield _told_of(outcome) if deaths[task.name] else outcome
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


def _told_of(outcome: Outcome) -> Outcome:
    return replace(outcome, warnings=[f"{outcome.flight}: its worker died; done again by another.", *outcome.warnings])


def _begun(worker: Worker, task: Task, died: tuple[type[Exception], ...]) -> "Future[Outcome]":
    """As `submit`; what it raises itself of a worker that died while idle is the future's too."""
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
    """A pool of one process: a pool of several would end them all when one dies."""

    def __init__(self, job: Job) -> None:
        self.job = job
        context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
        self.leash, theirs = context.Pipe()
        self.pool = ProcessPoolExecutor(1, context, begin_child, (theirs.recv_bytes,))

    def submit(self, task: Task) -> "Future[Outcome]":
        """Begin a flight."""
        return self.pool.submit(_predict_here, self.job, task)

    def end(self) -> None:
        """Let go of the leash: the process ends, its half-written file is nobody's."""
        self.leash.close()
        self.pool.shutdown(cancel_futures=True)


_predictors: list[Predictor] = []  # of this worker process: the one that it opened


def _predict_here(job: Job, task: Task) -> Outcome:
    if not _predictors:
        _predictors.append(Predictor(job))
    return _predictors[0].predict(task)


# --- Ray


def on_ray(job: Job, tasks: Sequence[Task], workers: int) -> Generator[Outcome, None, None]:
    """On the cluster of RAY_ADDRESS, or on this machine. All machines see the same folders by the same names."""
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
    """What Ray keeps in a process of its own. The model is opened with the first flight, so that errors come back."""

    def predict(self, job: Job, task: Task) -> Outcome:
        """One flight."""
        return _predict_here(job, task)


class RayWorker:
    """An actor: a process that Ray starts where there is room."""

    def __init__(self, ray: Any, actor: Any, job: Job) -> None:
        self.ray, self.actor, self.job = ray, actor.remote(), job

    def submit(self, task: Task) -> "Future[Outcome]":
        """Begin a flight."""
        return self.actor.predict.remote(self.job, task).future()

    def end(self) -> None:
        """End it at once."""
        self.ray.kill(self.actor)
