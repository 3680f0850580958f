"""The devices of a training: one, several of this machine, or those of several machines.

Every process of a training has its entry in TF_CONFIG, TensorFlow's description of a cluster. It is read here without
TensorFlow, so that a process knows early whether it is the chief, which alone writes files.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError, RunError

if TYPE_CHECKING:
    from cloudml_tf.config.schema import Config
    from cloudml_tf.config.training import Training


EXAMPLE = '{"cluster": {"worker": ["first:12345", "second:12345"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """The processes that train one network together; the first is the chief."""

    addresses: tuple[str, ...]
    index: int  # of this process


def cluster() -> Cluster | None:
    """Read TF_CONFIG; None where it is not set. Raises `ConfigError` where it does not describe a cluster of
    workers."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        content = json.loads(text)
        jobs, task = content["cluster"], content["task"]
        chiefs, workers = list(jobs.get("chief", [])), list(jobs.get("worker", []))
        kind, index = task["type"], int(task["index"])
        within = {"chief": chiefs, "worker": workers}[kind]
        valid = 0 <= index < len(within) and not set(jobs) - {"chief", "worker"}
    except (ValueError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise ConfigError(
            "The environment variable TF_CONFIG needs a cluster of workers (and at most one chief), and the type and "
            f"index of this one among them, such as {EXAMPLE}. Received: {text}"
        )
    return Cluster((*chiefs, *workers), index + (len(chiefs) if kind == "worker" else 0))


def is_chief(training: "Training") -> bool:
    """Whether this process writes the files of a run: the only process, or the first of the workers."""
    found = cluster() if training.devices == "workers" else None
    return found is None or found.index == 0


def warnings(training: "Training") -> list[str]:
    """Warn about a cluster that the configuration does not mention."""
    found = None
    if training.devices != "workers":
        with contextlib.suppress(ConfigError):  # it may be meant for another program
            found = cluster()
    if found is None or len(found.addresses) == 1:
        return []
    return [
        f"TF_CONFIG names {len(found.addresses)} workers, and training.devices is {training.devices}: each of them "
        "trains a network of its own; set training.devices to workers to train one together"
    ]


def refuse_workers(training: "Training", what: str) -> None:
    """Refuse commands that train several networks where workers share one. Raises `ConfigError`."""
    if training.devices == "workers":
        raise ConfigError(
            f"{what} trains many networks, and training.devices 'workers' is for one. Set training.devices to one or "
            "mirrored."
        )


@dataclass(frozen=True)
class Devices:
    """The devices of a training. `strategy` is None where there is one."""

    strategy: Any = None
    cluster: Cluster | None = None

    @property
    def replicas(self) -> int:
        """How many copies of the network are trained in sync."""
        return 1 if self.strategy is None else int(self.strategy.num_replicas_in_sync)

    @property
    def chief(self) -> bool:
        """Whether this process writes files."""
        return self.cluster is None or self.cluster.index == 0

    def scope(self) -> Any:
        """The scope in which variables of all devices are created."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def description(self) -> str:
        """A description for the terminal."""
        if self.cluster is None:
            return f"{self.replicas} devices in sync"
        here = f"worker {self.cluster.index + 1} of {len(self.cluster.addresses)}"
        return f"{here}{', the chief' if self.chief else ''}; {self.replicas} devices in sync"


def begin(training: "Training", console: Console) -> Devices:
    """Start the devices, and print them."""
    found = cluster() if training.devices == "workers" else None
    if found is not None and len(found.addresses) > 1:
        others = [address for index, address in enumerate(found.addresses) if index != found.index]
        console.say(f"waiting for the other workers: {', '.join(others)}")
    started = start(training)
    if started.strategy is not None:
        console.say(started.description())
    if training.devices == "mirrored" and started.replicas == 1:
        console.warn("training.devices is mirrored, but this machine has one device: it trains alone")
    return started


def start(training: "Training") -> Devices:
    """Start the configured devices. The first call must come before TensorFlow computes anything.

    With workers it waits until all of them are connected. Raises `ConfigError` for devices that are not available.
    """
    import keras

    if training.devices == "one":
        return Devices()
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"training.devices '{training.devices}' needs Keras on TensorFlow. Received: {keras.backend.backend()}. "
            "Set KERAS_BACKEND to tensorflow, or training.devices to one."
        )
    found = _mirrored(training.replicas) if training.devices == "mirrored" else _workers(os.environ.get("TF_CONFIG"))
    if training.batch_size < found.replicas:
        raise ConfigError(
            f"training.batch_size must be at least the number of devices that share it, {found.replicas}. "
            f"Received: {training.batch_size}"
        )
    return found


@cache
def _mirrored(count: int | None) -> Devices:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    names = [device.name for device in tf.config.list_logical_devices("GPU")] if gpus else _cpus(count or 1)
    if count is not None and count > len(names):
        raise ConfigError(f"training.replicas is {count}, and this machine has {len(names)} GPUs. Lower it.")
    return Devices(tf.distribute.MirroredStrategy(names[:count]))


def _cpus(count: int) -> list[str]:
    """Divide the CPU into so many virtual devices."""
    import tensorflow as tf

    processor = tf.config.list_physical_devices("CPU")[0]
    with contextlib.suppress(RuntimeError):  # TensorFlow has begun, perhaps with as many
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * count)
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    if len(names) < count:
        raise ConfigError(
            f"training.replicas {count} on a machine without a GPU: TensorFlow has started with {len(names)} virtual "
            "CPU, and cannot divide it any more. Train in a new process."
        )
    return names


@cache
def _workers(text: str | None) -> Devices:
    import tensorflow as tf

    found = cluster()
    if found is None:
        raise ConfigError(
            "training.devices 'workers' needs the environment variable TF_CONFIG, on each machine with an index of its "
            f"own, such as {EXAMPLE}. On one machine set training.devices to mirrored."
        )
    try:
        with _interruptible():
            return Devices(tf.distribute.MultiWorkerMirroredStrategy(), found)
    except RuntimeError as error:
        raise ConfigError(f"training.devices 'workers' needs a new process: {error}") from None
    except tf.errors.OpError as error:
        raise RunError(f"the workers {', '.join(found.addresses)} cannot connect: {_first(error)}") from None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once: TensorFlow waits an hour for other workers, without running Python code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def check_alike(devices: Devices, config: "Config", fingerprint: str, first_epoch: int) -> None:
    """Refuse workers that would train different things: each reads its own files. Raises `RunError` on all of them."""
    if devices.cluster is None:
        return
    import tensorflow as tf

    # Paths may differ; fingerprints compare the flights themselves.
    settings = config.model_dump(mode="json", exclude={"experiment_name", "data", "output", "tracking"})
    wanted: Mapping[str, Any] = {"configuration": settings, "flights": fingerprint, "first epoch": first_epoch}
    row = tf.constant([[_digest(value) for value in wanted.values()]], "int64")  # (1, 3)
    strategy = devices.strategy
    gathered = tf.function(lambda: strategy.gather(strategy.run(lambda: tf.identity(row)), axis=0), autograph=False)
    rows = gathered().numpy()  # (replicas, 3)
    differ = [name for name, column in zip(wanted, rows.T, strict=True) if len(set(column.tolist())) > 1]
    if differ:
        raise RunError(
            f"the workers differ in: {', '.join(differ)}. Start all of them with the same configuration and --set, the "
            "same flight files, and with --resume all or none, on a run folder that each of them sees."
        )


def _digest(value: Any) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:6], "big")


def from_chief(devices: Devices, values: Sequence[Any]) -> list[Any]:
    """Broadcast the chief's arrays to every worker."""
    if devices.cluster is None:
        return list(values)
    import tensorflow as tf

    def given(own: list[Any]) -> list[Any]:
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group, 0)
        return context.all_reduce("SUM", [tf.where(first, x, tf.zeros_like(x)) for x in own])

    strategy = devices.strategy
    found = tf.function(lambda own: strategy.run(given, args=(own,)), autograph=False)([*map(tf.constant, values)])
    return [strategy.experimental_local_results(x)[0].numpy() for x in found]


@contextlib.contextmanager
def lost_worker_as_error() -> Iterator[None]:
    """Turn the loss of a worker into a `RunError` with a clear message."""
    try:
        yield
    except Exception as error:
        if "tensorflow" not in sys.modules or not os.environ.get("TF_CONFIG"):
            raise
        from tensorflow import errors

        if not isinstance(error, errors.UnavailableError | errors.AbortedError | errors.DeadlineExceededError):
            raise
        raise RunError(
            f"a worker no longer responds: {_first(error)} Stop the others, and start all again with --resume."
        ) from None


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]
