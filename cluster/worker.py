"""What runs in a worker: an object made there, whose methods are called one after the other."""

from __future__ import annotations

import importlib
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Message = tuple[int, str, str | None]


@dataclass
class Answer:
    """How a call ended.

    Attributes:
        value: what was returned beside the payload.
        error: what was raised, in words; ``kind`` is the name of its class.
        trace: where.
        messages: what was logged, warnings and worse: levels, texts, and what they are called where
            that is not the name of the level.
    """

    value: Any = None
    error: str | None = None
    kind: str = ""
    trace: str = ""
    messages: list[Message] = field(default_factory=list)


class ElsewhereError(ValueError):
    """What was raised in another process: its words, and where."""

    def __init__(self, text: str, trace: str) -> None:
        super().__init__(text)
        self.trace = trace


class Worker:
    """Holds an object and calls its methods.

    Args:
        factory: "module:name" of what makes the object; names that ComfyUI gives to modules of this
            pack are not known elsewhere, those beginning with fdat_dense_iso are. The object has
            ``reason(error)``, what an exception says, and ``aliases``: beginnings of paths that
            files have here alone, and what messages say instead.
        arguments: what it is made of; ``shared`` comes before them, from the object store.
    """

    def __init__(self, factory: str, arguments: dict[str, Any], *shared: Any) -> None:
        module, _, name = factory.partition(":")
        with _Recorder():  # the driver says what there is to say of the model
            self._object: Any = getattr(importlib.import_module(module), name)(*shared, **arguments)

    def call(self, method: str, *arguments: Any) -> tuple[dict[str, Any], Any]:
        """Call a method, which returns a small value and a payload of any size: the fields of an
        `Answer`, since classes have other names in ComfyUI, and the payload."""
        with _Recorder() as recorder:
            try:
                value, payload = getattr(self._object, method)(*arguments)
                answer = Answer(value)
            except Exception as error:
                reason = named(self._object.reason(error), self._object.aliases)
                answer, payload = failure(error, reason), None
        aliases = self._object.aliases
        answer.messages = [
            (level, named(text, aliases), kind) for level, text, kind in recorder.said
        ]
        return vars(answer), payload


def named(text: str, aliases: Mapping[str, str]) -> str:
    """A text with the driver's names for files."""
    for here, name in aliases.items():
        text = text.replace(here, name)
    return text


def failure(error: Exception, reason: str) -> Answer:
    """How a call ended that raised ``error``; within its handler."""
    return Answer(error=reason, kind=type(error).__name__, trace=traceback.format_exc())


class _Recorder(logging.Handler):
    """Keeps warnings, which go to the process that prints them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[Message] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("pyvips"):
            kind = getattr(record, "kind", None)
            self.said.append((record.levelno, record.getMessage(), kind))

    def __enter__(self) -> _Recorder:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
