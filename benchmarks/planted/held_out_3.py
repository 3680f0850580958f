"""A third set, written down before any of it was run, after the first two had been looked at.

Profiles of the healthy runs are 3 s long: their middles then lie on frames, and no label is rounded to the wrong one.
"""

from typing import Any

from planted.faults import Case, brighten, copy_flight, shift_lidar, shuffle_profiles, simulation, stray_light, training
from planted.held_out import flights


def clean(count: int, **changes: Any) -> dict[str, Any]:
    """Flights whose labels lie on frames."""
    return flights(count, **{"lidar_interval_s": 3.0, "frames_per_flight": 700, **changes})


BLOCKS: dict[str, Any] = {"kind": "time_blocks", "val_fraction": 0.2, "test_fraction": 0.15}
THIRD = [
    Case(
        "3 labels dealt anew, quantile head",
        "no correlation",
        {
            **flights(4, seed=301, frames_per_flight=700),
            "model": {"head": "quantile", "quantiles": 5},
            "loss": {"base": "pinball", "weight": 0.25},
            "seed": 91,
        },
        edit=shuffle_profiles(3),
    ),
    Case(
        "3 output weights of 1e-4, a slow start",
        "collapse",
        {
            **flights(5, seed=302, frames_per_flight=400),
            "temporal_frames": 5,
            "model": {"output_init": 1e-4},
            "loss": {"base": "mse_mae", "weight": 0.05},
            "seed": 92,
            **training(learning_rate=1e-4, warmup_epochs=10, max_epochs=5, batch_size=64),
        },
    ),
    Case(
        "3 variance penalty of 100, noisy camera",
        "inflation",
        {
            **flights(5, seed=303, frames_per_flight=500, read_noise=0.1, shot_noise=0.15),
            "temporal_frames": 1,
            "model": {"architecture": "single_frame"},
            "loss": {"weight": 100, "base": "huber"},
            "seed": 93,
        },
    ),
    Case(
        "3 test flight at 1.6, quantile head",
        "bias",
        {
            **flights(6, seed=304, frames_per_flight=500),
            "model": {"head": "quantile", "quantiles": 5},
            "loss": {"base": "pinball", "weight": 0.1},
            "seed": 94,
        },
        edit=brighten(1.6, "sim06"),
    ),
    Case(
        "3 blocks 3 s apart, another flight in stray light",
        "leak",
        {
            **simulation(flight_count=4, seed=305, frames_per_flight=600),
            "split": {**BLOCKS, "gap_s": 3.0},
            "loss": {"weight": 0.25},
            "seed": 95,
        },
        held_out=stray_light(0.2),
    ),
    Case(
        "3 validation is a copy, log",
        "leak",
        {
            **flights(5, seed=306, frames_per_flight=600, preset="hard"),
            "target": {"transform": "log"},
            "loss": {"weight": 0.1},
            "seed": 96,
        },
        edit=copy_flight("sim02", "sim04", 0.02),
    ),
    Case(
        "3 dropout 0.93, one frame",
        "over-regularised",
        {
            **flights(5, seed=307, frames_per_flight=500),
            "temporal_frames": 1,
            "model": {"architecture": "single_frame", "dropout": 0.93},
            "loss": {"weight": 0.1},
            "seed": 97,
        },
    ),
    Case(
        "3 rate 3, no clipping, five frames",
        "learning rate",
        {
            **flights(5, seed=308, frames_per_flight=400),
            "temporal_frames": 5,
            "loss": {"base": "huber"},
            "seed": 98,
            **training(learning_rate=3.0, gradient_clip_norm=None, warmup_epochs=0),
        },
    ),
    Case(
        "3 a profile in 45 s",
        "too few labels",
        {**flights(4, seed=309, frames_per_flight=500, lidar_interval_s=45.0), "seed": 99, **training(batch_size=8)},
    ),
    Case(
        "3 clock of the test flight, 25 s early",
        "bad clock",
        {**flights(5, seed=310, frames_per_flight=700), "target": {"transform": "log"}, "seed": 100},
        edit=shift_lidar(-25.0, "sim05"),
    ),
    Case("3 healthy", "healthy", {**clean(6, seed=321), "seed": 111}),
    Case("3 healthy, no penalty, huber", "healthy", {**clean(6, seed=322), "loss": {"weight": 0, "base": "huber"}}),
    Case(
        "3 healthy, log, five frames",
        "healthy",
        {**clean(6, seed=323), "temporal_frames": 5, "seed": 113, "target": {"transform": "log"}},
    ),
    Case(
        "3 healthy, histogram head",
        "healthy",
        {
            **clean(7, seed=324),
            "model": {"head": "histogram", "bins": 20},
            "loss": {"base": "cross_entropy", "weight": 0},
            "seed": 114,
        },
    ),
    Case(
        "3 healthy, quantile head",
        "healthy",
        {
            **clean(6, seed=325),
            "model": {"head": "quantile", "quantiles": 9},
            "loss": {"base": "pinball", "weight": 0.25},
            "seed": 115,
        },
    ),
    Case(
        "3 healthy, time blocks",
        "healthy",
        {
            **simulation(flight_count=4, seed=326, frames_per_flight=900, lidar_interval_s=3.0),
            "split": {**BLOCKS, "gap_s": 120.0},
            "seed": 116,
        },
    ),
    Case(
        "3 healthy, leave one out",
        "healthy",
        {
            **simulation(flight_count=6, seed=327, frames_per_flight=600, lidar_interval_s=3.0),
            "split": {"kind": "leave_one_out", "test": "sim03"},
            "loss": {"weight": 0.25, "form": "ccc"},
            "seed": 117,
        },
    ),
    Case(
        "3 healthy, one frame, hinge",
        "healthy",
        {
            **clean(6, seed=328),
            "temporal_frames": 1,
            "model": {"architecture": "single_frame"},
            "loss": {"weight": 0.5, "form": "hinge", "gamma": 0.8},
            "seed": 118,
        },
    ),
    Case(
        "3 healthy, hard imagery, three frames",
        "healthy",
        {**clean(7, seed=329, preset="hard"), "loss": {"weight": 0.05}, "seed": 119},
    ),
    Case(
        "3 healthy, straight line from nadir, averaged, augmented",
        "healthy",
        {
            **clean(6, seed=330, frame_rows=14, frame_columns=14),
            "model": {"nadir_linear": True},
            "augmentation": {"gain_std": 0.05, "mirror_along_track": True},
            "seed": 120,
            **training(ema_momentum=0.9, batch_size=24),
        },
    ),
]
