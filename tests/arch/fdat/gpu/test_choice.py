"""Which way computes an operator: right, wrong, slow and failing kernels, without a GPU."""

from __future__ import annotations

import pytest
import torch

from fdat_dense_iso.arch.fdat.gpu import candidates, choice, launch, operators, twins


@pytest.fixture(autouse=True)
def possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are possible on the CPU, and nothing is chosen yet."""
    monkeypatch.setattr(launch, "is_possible", lambda device, dtype: True)
    choice.forget()
    yield
    choice.forget()


def use(monkeypatch: pytest.MonkeyPatch, *ways: candidates.Way) -> torch.Tensor:
    """The result of an operator that has these ways."""
    monkeypatch.setattr(candidates, "ways_of", lambda name, *arguments: list(ways))
    return compute()


def compute() -> torch.Tensor:
    x = torch.randn(10, 7, 16, generator=torch.Generator().manual_seed(0))
    out = torch.zeros(8, 7, 16)
    operators.feed_forward(x, out, 1, 1, *norm(), *weights())
    return out


def norm() -> tuple[torch.Tensor, torch.Tensor, float]:
    return torch.ones(16), torch.zeros(16), 1e-5


def weights() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(shape, generator=generator) / 4 for shape in ((24, 16), (24, 1, 3, 3), (16, 24))
    )


def expected() -> torch.Tensor:
    x = torch.randn(10, 7, 16, generator=torch.Generator().manual_seed(0))
    out = torch.zeros(8, 7, 16)
    twins.feed_forward(x, out, 1, 1, *norm(), *weights())
    return out


class Recorded:
    """A way that computes what the twin does, changed by ``change``, and counts its calls."""

    def __init__(self, change=lambda out: None) -> None:  # type: ignore[no-untyped-def]
        self.calls, self.change = 0, change

    def __call__(self, *arguments) -> None:  # type: ignore[no-untyped-def]
        self.calls += 1
        twins.feed_forward(*arguments)
        self.change(arguments[1])


def test_a_right_kernel_is_used(monkeypatch: pytest.MonkeyPatch, caplog) -> None:  # type: ignore[no-untyped-def]
    way = Recorded()
    assert torch.equal(use(monkeypatch, way), expected())
    compute()
    assert way.calls == 3 and not caplog.records  # the check, and two uses


@pytest.mark.parametrize(
    "change",
    [
        lambda out: out.mul_(1.001),
        lambda out: out[3, 4].fill_(float("nan")),
        lambda out: out[-1].zero_(),
    ],
    ids=["scaled", "nan", "a row missing"],
)
def test_a_wrong_kernel_is_dropped(change, monkeypatch: pytest.MonkeyPatch, caplog) -> None:  # type: ignore[no-untyped-def]
    way = Recorded(change)
    assert torch.equal(use(monkeypatch, way), expected())
    assert torch.equal(compute(), expected()) and way.calls == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "feed_forward" in caplog.text and "wrong" in caplog.text


def test_the_next_way_is_tried(monkeypatch: pytest.MonkeyPatch, caplog) -> None:  # type: ignore[no-untyped-def]
    def fails(*arguments) -> None:  # type: ignore[no-untyped-def]
        raise RuntimeError("out of resource: shared memory")

    way = Recorded()
    assert torch.equal(use(monkeypatch, fails, way), expected())
    assert way.calls == 2 and not caplog.records


def test_a_kernel_that_fails_later_is_replaced(monkeypatch: pytest.MonkeyPatch, caplog) -> None:  # type: ignore[no-untyped-def]
    way = Recorded()
    use(monkeypatch, way)

    def fails(out: torch.Tensor) -> None:
        raise RuntimeError("no kernel image\nis available")

    way.change = fails
    assert torch.equal(compute(), expected())
    assert torch.equal(compute(), expected()) and way.calls == 3
    assert caplog.text.count("failed (no kernel image)") == 1


def test_shortage_of_memory_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments) -> None:  # type: ignore[no-untyped-def]
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        use(monkeypatch, full)
    assert torch.equal(use(monkeypatch, Recorded()), expected())


def test_the_check_takes_a_few_rows_and_leaves_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "CHECKED_TOKENS", 64)
    x, out = torch.randn(42, 7, 16), torch.zeros(40, 7, 16)
    arguments = (x, out, 1, 1, *norm(), *weights())
    few = choice._few_rows(twins.feed_forward, arguments)
    assert few[0].shape == (10, 7, 16) and few[1].shape == (8, 7, 16) and few[2:4] == (1, 1)
    assert torch.equal(choice._result(twins.feed_forward, few), _result_of(arguments)[:8])
    assert not out.any()


def _result_of(arguments: tuple) -> torch.Tensor:
    return choice._result(twins.feed_forward, arguments)


def test_nothing_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Triton, and on devices where it does not compile, the twins compute."""
    monkeypatch.undo()
    assert not launch.is_possible(torch.device("mps"), torch.float16)
    assert not launch.is_possible(torch.device("cuda"), torch.float64)
    monkeypatch.setattr(launch, "has_triton", lambda: False)
    assert not launch.is_possible(torch.device("cuda"), torch.float16)
    monkeypatch.setattr(launch, "has_triton", lambda: True)
    assert launch.is_possible(torch.device("cuda"), torch.float16)
