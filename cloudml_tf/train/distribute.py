"""A `fit` over several devices: each batch is split over them, and every number is that of the whole batch.

Keras's own `fit` does not run under TensorFlow's MultiWorkerMirroredStrategy, averages shares of different size as if
they were equal, and clips gradients before they are summed. This one is short, calls the same callbacks at the same
moments, and trains what one device would train:

    batch ─ equal shares, in order ─ forward ─ loss of the whole batch ─ gradients, summed ─ clipped ─ one update

All workers read the same files and draw the same batches; each device takes its share.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from cloudml_tf.train.tf_dataset import as_dataset


class InStep:
    """A network that is trained on all replicas of a strategy.

    Args:
        strategy: a `tf.distribute` strategy.
        model: made and compiled in the strategy's scope. Its optimizer clips, if at all, at a norm divided by the
            number of replicas (`network.make_optimizer`).
        loss: a `VariancePreservingLoss`, made in the scope; its `call` gives the loss of each sample.
        metrics: made in the scope. Their states must be sums.
        weighted: whether sample weights enter the metrics.
    """

    def __init__(
        self, strategy: Any, model: keras.Model, loss: Any, metrics: Sequence[keras.metrics.Metric], weighted: bool
    ) -> None:
        self.strategy, self.model, self.loss = strategy, model, loss
        self.metrics, self.weighted = metrics, weighted
        self._train, self._test = self._on_all(self._training_step), self._on_all(self._test_step)
        self._sum = self._on_all(keras.ops.copy)

    def fit(
        self,
        batches: keras.utils.PyDataset,
        validation: keras.utils.PyDataset,
        epochs: int,
        first_epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        """Train like `model.fit`, on batches of (inputs by name, target[, sample weight])."""
        model, steps = self.model, len(batches)
        events = keras.callbacks.CallbackList(list(callbacks), model=model, verbose=0, epochs=epochs, steps=steps)
        training, held_out = as_dataset(batches), as_dataset(validation)
        model.stop_training = False
        events.on_train_begin()
        logs: dict[str, float] = {}
        for epoch in range(first_epoch, epochs):
            events.on_epoch_begin(epoch)
            logs = self._pass(self._train, training, events.on_train_batch_begin, events.on_train_batch_end)
            events.on_test_begin()
            found = self._pass(self._test, held_out, events.on_test_batch_begin, events.on_test_batch_end)
            events.on_test_end(found)
            logs |= {f"val_{name}": value for name, value in found.items()}
            events.on_epoch_end(epoch, logs)
            if self._any_stops():
                break
        events.on_train_end(logs)

    def _pass(
        self,
        step: Callable[..., Any],
        batches: Any,
        begin: Callable[[int], None],
        end: Callable[[int, dict[str, float]], None],
    ) -> dict[str, float]:
        """Process all batches once; return the mean loss and the metrics."""
        for metric in self.metrics:
            metric.reset_state()
        total = samples = 0.0
        for number, batch in enumerate(batches):
            begin(number)
            shares, size = self.shared_out(batch)
            total, samples = total + float(step(shares, size)) * float(size), samples + float(size)
            end(number, {"loss": total / samples})
            if self.model.stop_training:
                break
        found = {metric.name: float(metric.result()) for metric in self.metrics}
        return dict(sorted({"loss": total / samples, **found}.items()))

    def shared_out(self, batch: tuple[Any, ...]) -> tuple[Any, Any]:
        """Split a batch into equal shares, one per replica of this process; return them and the batch's size.

        Inputs are filled up with the batch's last sample, because a convolution of none fails; targets are not.
        """
        import tensorflow as tf

        inputs, *known = batch
        size, replicas = int(known[0].shape[0]), self.strategy.num_replicas_in_sync
        width = -(-size // replicas)

        def share(context: Any) -> tuple[Any, ...]:
            start = context.replica_id_in_sync_group * width
            rows = tf.minimum(tf.range(start, start + width), size - 1)
            own = {name: tf.gather(values, rows) for name, values in inputs.items()}
            return (own, *(values[start : start + width] for values in known))

        with tf.device("CPU:0"):
            return self.strategy.experimental_distribute_values_from_function(share), tf.constant(float(size))

    def _on_all(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """Run a function on each replica, and sum its results over all of them; one graph."""
        import tensorflow as tf

        def step(*args: Any) -> Any:
            return self.strategy.reduce("SUM", self.strategy.run(part, args=args), axis=None)

        return tf.function(step, autograph=False, reduce_retracing=True)

    def gradients(self, share: tuple[Any, ...], size: Any) -> tuple[Any, Any, list[Any], list[Any]]:
        """In a replica: predictions, its share of the loss, variables, and its share of the loss's gradients."""
        import tensorflow as tf

        with tf.GradientTape() as tape:
            output, part = self._forward(share, size, training=True)
        variables = self.model.trainable_variables
        found = tape.gradient(part, [variable.value for variable in variables])
        pairs = [(v, tf.convert_to_tensor(g)) for v, g in zip(variables, found, strict=True) if g is not None]
        return output, part, [v for v, _ in pairs], [g for _, g in pairs]

    def _training_step(self, share: tuple[Any, ...], size: Any) -> Any:
        import tensorflow as tf

        output, part, variables, gradients = self.gradients(share, size)
        # The optimizer clips what it is given and adds it up over the replicas. Given the mean everywhere, and a limit
        # divided by their number, that is the sum, clipped.
        mean = tf.distribute.get_replica_context().all_reduce("MEAN", gradients)
        self.model.optimizer.apply(list(mean), variables)
        self._update_metrics(share, output)
        return part

    def _test_step(self, share: tuple[Any, ...], size: Any) -> Any:
        output, part = self._forward(share, size, training=False)
        self._update_metrics(share, output)
        return part

    def _forward(self, share: tuple[Any, ...], size: Any, training: bool) -> tuple[Any, Any]:
        """The predictions for a share's samples, and their part of the mean loss of the whole batch."""
        import tensorflow as tf

        inputs, target, *weight = share
        output = self.model(inputs, training=training)[: tf.shape(target)[0]]  # without the filled-up samples
        losses = self.loss.call((target, *weight) if weight else target, output)  # (samples of the share,)
        return output, tf.reduce_sum(losses) / tf.cast(size, losses.dtype)

    def _update_metrics(self, share: tuple[Any, ...], output: Any) -> None:
        _, target, *weight = share
        for metric in self.metrics:
            metric.update_state(target, output, *(weight if self.weighted else ()))

    def _any_stops(self) -> bool:
        """Whether to stop, with the same result on every worker: a worker that continued alone would wait for ever."""
        import tensorflow as tf

        return bool(self._sum(tf.constant(float(self.model.stop_training))) > 0)


class OnOneDevice(keras.callbacks.Callback):
    """Lets callbacks that look into a network, or predict with it, do so on a copy that one device holds.

    Args:
        copy: the same network, made outside the strategy's scope and compiled with the loss.
        callbacks: callbacks that read the network and change nothing.
    """

    def __init__(self, copy: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        super().__init__()
        self.copy, self.callbacks = copy, list(callbacks)
        for callback in self.callbacks:
            callback.set_model(copy)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Pass the event on."""
        for callback in self.callbacks:
            callback.on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Copy this epoch's weights, and pass the event on."""
        self.copy.set_weights(self.model.get_weights())
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, logs)
