"""Which replica this is, how many there are, and sums over all, when one model is trained on several devices.

Only TensorFlow runs Keras code once per replica; the other backends see the global batch. TensorFlow is imported
only where it is the backend.
"""

from collections.abc import Sequence
from typing import Any

import keras


def replica_count() -> int:
    """How many replicas the present `tf.distribute` strategy keeps in step; 1 outside of any, and on other backends."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def replica_index() -> object:
    """The index of this replica, an int or an integer tensor; 0 outside of a replica."""
    if keras.backend.backend() != "tensorflow":
        return 0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def sum_over_replicas(sums: Sequence[Any]) -> list[Any]:
    """Each scalar added up over the replicas, seen alike by all; as it is outside of a replica.

    The gradient of a sum over replicas is the sum of their gradients: what each replica's part of the loss asks of the
    whole batch comes together. Parts whose shares add up to 1 (Keras divides by the number of replicas) then pull
    exactly once.
    """
    if keras.backend.backend() != "tensorflow":
        return list(sums)
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(sums)
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(sums)))
