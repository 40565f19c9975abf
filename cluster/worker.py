"""What runs in a worker: an object made there, whose methods are called one after the other."""

from __future__ import annotations

import importlib
import logging
import traceback
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """How a call ended.

    Attributes:
        value: what was returned beside the payload.
        error: what was raised, in words; ``kind`` is the name of its class.
        trace: where.
        messages: levels and texts that were logged, warnings and worse.
    """

    value: Any = None
    error: str | None = None
    kind: str = ""
    trace: str = ""
    messages: list[tuple[int, str]] = field(default_factory=list)


class Worker:
    """Holds an object and calls its methods.

    Args:
        factory: "module:name" of what makes the object; names that ComfyUI gives to modules of this
            pack are not known elsewhere, those beginning with fdat_dense_iso are.
        arguments: what it is made of; ``shared`` comes before them, from the object store.
    """

    def __init__(self, factory: str, arguments: dict[str, Any], *shared: Any) -> None:
        module, _, name = factory.partition(":")
        with _Recorder():  # the driver says what there is to say of the model
            self._object = getattr(importlib.import_module(module), name)(*shared, **arguments)

    def call(self, method: str, *arguments: Any) -> tuple[dict[str, Any], Any]:
        """Call a method, which returns a small value and a payload of any size: the fields of an
        `Answer`, since classes have other names in ComfyUI, and the payload."""
        with _Recorder() as recorder:
            try:
                value, payload = getattr(self._object, method)(*arguments)
                answer = Answer(value, messages=recorder.said)
            except Exception as error:
                trace = traceback.format_exc()
                text = self._object.reason(error)
                kind = type(error).__name__
                answer = Answer(error=text, kind=kind, trace=trace, messages=recorder.said)
                payload = None
        return vars(answer), payload


class _Recorder(logging.Handler):
    """Keeps warnings, which go to the process that prints them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("pyvips"):
            self.said.append((record.levelno, record.getMessage()))

    def __enter__(self) -> _Recorder:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
