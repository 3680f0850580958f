"""The order in which neighbours in time stay together, so that their sequences share frames."""

import numpy as np

from cloudml_tf.data.samples import Samples


def in_runs(samples: Samples, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples in runs of up to `length` neighbours of one gap-free piece, the runs mixed: order (n,), run (n,) of each.

    Pieces are cut at another place each time, lest the same neighbours always meet.
    """
    new = np.flatnonzero((np.diff(samples.flight) != 0) | (np.diff(samples.piece) != 0)) + 1
    starts = np.concatenate([[0], new]).astype(int)
    piece = np.searchsorted(starts, np.arange(len(samples)), side="right") - 1
    offset = rng.integers(length, size=len(starts))
    inside = (np.arange(len(samples)) - starts[piece] + offset[piece]) // length
    run = np.unique(np.stack([piece, inside]), axis=1, return_inverse=True)[1].ravel()
    order = np.argsort(rng.permutation(run.max() + 1)[run], kind="stable")
    return order, run[order]
