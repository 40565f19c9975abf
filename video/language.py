"""Codes of languages, as a file format holds them."""

from __future__ import annotations

import io
import re
from functools import cache

import av
import numpy as np

_TWICE = {  # of ISO 639-2, the terminologic codes that differ from the bibliographic ones
    **{"bod": "tib", "ces": "cze", "cym": "wel", "deu": "ger", "ell": "gre", "eus": "baq"},
    **{"fas": "per", "fra": "fre", "hye": "arm", "isl": "ice", "kat": "geo", "mkd": "mac"},
    **{"msa": "may", "mya": "bur", "nld": "dut", "ron": "rum", "slk": "slo", "sqi": "alb"},
    **{"zho": "chi"},
}
_OTHER = _TWICE | {one: other for other, one in _TWICE.items()}


@cache
def language_in(container: str, language: str) -> str | None:
    """The code that a file of FFmpeg's format ``container`` keeps for a language; None: none.

    MP4 holds any three letters. MOV holds numbers, of which FFmpeg knows some by one of both codes
    of a language, which is tried.
    """
    if container == "mp4":
        return language if re.fullmatch("[a-z]{3}", language) else None
    if container != "mov":
        return language
    codes = [language, *filter(None, [_OTHER.get(language)])]
    return next((code for code in codes if _comes_back(code)), None)


def _comes_back(language: str) -> bool:
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        stream.metadata["language"] = language
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 8), np.int16), format="s16", layout="mono"
        )
        silence.sample_rate, silence.pts = 8000, 0
        container.mux(stream.encode(silence))
    file.seek(0)
    with av.open(file) as container:
        return container.streams[0].metadata.get("language") == language
