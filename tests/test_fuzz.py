"""Spoilt flights and configurations, drawn by hypothesis: the product uses them or says clearly why not.

`make fuzz` tries far more of the same, guided by coverage; what either found once has a test of its own elsewhere.
"""

import hashlib
from pathlib import Path

import pytest
from choices import Choices
from fuzz_targets import TARGETS, ConfigTarget, FlightTarget
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spoilt_configs import spoilt_text, whole

BYTES = st.binary(min_size=16, max_size=256)
STEADY = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> FlightTarget:
    return FlightTarget(tmp_path_factory.mktemp("flights"))


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> ConfigTarget:
    return ConfigTarget(tmp_path_factory.mktemp("configs"))


@settings(max_examples=60, **STEADY)
@given(data=BYTES)
def test_any_flight_is_used_or_refused(flights: FlightTarget, data: bytes) -> None:
    flights.one(data)


@settings(max_examples=600, **STEADY)
@given(data=BYTES)
def test_any_configuration_is_used_or_refused(configs: ConfigTarget, data: bytes) -> None:
    configs.one(data)


@pytest.mark.slow
@settings(max_examples=4000, **{**STEADY, "derandomize": False})
@given(data=BYTES)
def test_many_flights_are_used_or_refused(flights: FlightTarget, data: bytes) -> None:
    flights.one(data)


@pytest.mark.slow
@settings(max_examples=40_000, **{**STEADY, "derandomize": False})
@given(data=BYTES)
def test_many_configurations_are_used_or_refused(configs: ConfigTarget, data: bytes) -> None:
    configs.one(data)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.no_cover
def test_spoilt_inputs_are_neither_all_good_nor_all_bad(tmp_path: Path, name: str) -> None:
    target = TARGETS[name](tmp_path)
    count = {"flights": 40, "config": 200}[name]
    endings = {target.one(hashlib.sha512(f"{name} {number}".encode()).digest()) for number in range(count)}
    assert endings >= {"used", "refused"}


def test_the_same_bytes_give_the_same_case() -> None:
    base = whole()
    assert spoilt_text(Choices(b"some bytes"), base) == spoilt_text(Choices(b"some bytes"), base)
    assert len({spoilt_text(Choices(bytes([n, n, n])), base) for n in range(50)}) > 25
