"""Reflection against walking to and fro, and against torch's own where that reaches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fdat_dense_iso.common.reflection import reflect


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 9])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 7), (7, 0), (2, 3), (20, 20)])
def test_reflection_bounces_between_the_ends(length: int, before: int, after: int) -> None:
    bounce = list(range(length)) + list(range(length - 2, 0, -1))  # one there and back
    expected = [bounce[i % len(bounce)] for i in range(-before, length + after)]
    found = reflect(torch.arange(length).expand(2, length), 1, before, after)
    assert found.tolist() == [expected, expected]


def test_equals_torchs_reflection() -> None:
    image = torch.rand(1, 2, 9, 11)
    expected = F.pad(image, (4, 10, 8, 3), mode="reflect")
    assert torch.equal(reflect(reflect(image, 2, 8, 3), 3, 4, 10), expected)
