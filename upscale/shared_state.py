"""State of a model that calls in several threads share: noted by the first, restored by the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn


@dataclass
class _Use:
    way: Hashable
    restore: Callable[[], None]
    threads: list[int] = field(default_factory=list)


_changed = threading.Condition()
_uses: dict[tuple[int, str], _Use] = {}


@contextmanager
def shared(
    module: nn.Module, what: str, way: Hashable, note: Callable[[], Callable[[], None]]
) -> Iterator[None]:
    """A context in which the module is used; it waits while others use it in another ``way``.

    Args:
        module: whose state is changed.
        what: names the state, for example "device".
        way: how it is used, for example the device; uses of the same way go on side by side.
        note: called by the first of them; what it returns is called by the last one, at its end.

    Raises:
        ValueError: this thread itself uses it in another way.
    """
    key, me = (id(module), what), threading.get_ident()
    with _changed:
        while key in _uses and _uses[key].way != way:
            if me in _uses[key].threads:
                raise ValueError(
                    f"the model is in use by this thread with {what} {_uses[key].way}, and can't be used with {way} "
                    "at the same time; wait for the first call, or load it twice"
                )
            _changed.wait()
        if key not in _uses:
            _uses[key] = _Use(way, note())
        _uses[key].threads.append(me)
    try:
        yield
    finally:
        with _changed:
            use = _uses[key]
            use.threads.remove(me)
            if not use.threads:
                del _uses[key]
                use.restore()
                _changed.notify_all()
