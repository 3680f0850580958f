"""Which replica this is, and how many there are, when one model is trained on several devices.

Only TensorFlow runs Keras code once per replica; the other backends see the global batch. TensorFlow is imported
only where it is the backend.
"""

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
