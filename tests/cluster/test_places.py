"""Which workers there are, on machines with pretended GPUs."""

from __future__ import annotations

import pytest

from fdat_dense_iso.cluster import places
from fdat_dense_iso.cluster.connection import ClusterError
from fdat_dense_iso.cluster.places import Place, local_places, other_places


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs and eight cores."""
    monkeypatch.setattr(places, "accelerators", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(places, "_cores", lambda: 8)


def test_devices_of_this_machine() -> None:
    both = [Place("cuda:0", 4), Place("cuda:1", 4)]
    assert local_places("all", None) == local_places("cuda:0, cuda:1", None) == both
    assert local_places("cuda", 3) == [Place("cuda:0", 3)]
    assert local_places("cpu:3", None) == [Place("cpu", 2)] * 3


def test_a_machine_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "accelerators", list)
    assert local_places("all", None) == [Place("cpu", 4)] * 2
    assert local_places("all", 16) == [Place("cpu", 8)]
    assert other_places("all", "cpu") == []
    with pytest.raises(ClusterError, match="cuda:0 is not available here, where there is no GPU"):
        other_places("cuda:0", "cpu")


def test_devices_beside_the_own_one() -> None:
    assert other_places("all", "cuda:0") == [Place("cuda:1", 4)]
    assert other_places("cuda:0,cuda:1", "cuda:1") == [Place("cuda:0", 4)]
    assert other_places("cuda:0", "cuda:0") == []
    assert other_places("cpu:3", "cpu") == [Place("cpu", 2)] * 3


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("cuda:2", "cuda:2 is not available here, where there is cuda:0, cuda:1; use all"),
        ("cuda:0,cuda", "a device is named twice"),
        ("cpu", "cpu is not available here"),
        ("cpu:0", "the number of CPU workers was expected"),
        ("", "is not available here"),
    ],
)
def test_what_is_not_there(devices: str, message: str) -> None:
    for places_of in (local_places, other_places):
        with pytest.raises(ClusterError, match=message):
            places_of(devices, None)  # type: ignore[operator]
