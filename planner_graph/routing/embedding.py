"""The optional embedding model as the router wants it: loaded on first use, its results kept on disk, its absence said once.

Embedding a catalog's examples costs milliseconds each; they are the same after every start, so their vectors are kept under
the data folder, by a hash of the text. Intents are never kept: they are somebody's words.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from planner_graph.routing.minilm import WIDTH, EmbeddingUnavailableError, MiniLm
from planner_graph.routing.model import Encoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_MODEL = "minilm-l6-1"
"""Part of every cache key: other weights or another way of reading texts get another name."""


class EmbeddingSource:
    """Gives the encoder, or the reason why there is none. ``folder`` is where vectors of examples are kept; None keeps none."""

    def __init__(self, folder: Path | None = None, *, load: Callable[[], Encoder] = MiniLm.load) -> None:
        self._folder = folder
        self._load = load
        self._encoder: Encoder | None = None
        self._reason: str | None = None

    def encoder(self) -> Encoder | None:
        """The model, loaded at the first call; None when it is not installed."""
        if self._encoder is None and self._reason is None:
            try:
                self._encoder = self._load()
            except EmbeddingUnavailableError as error:
                self._reason = str(error)
        return self._encoder

    @property
    def reason(self) -> str | None:
        """Why there is no encoder, in words; None while nobody asked or when there is one."""
        return self._reason

    def for_examples(self) -> Encoder | None:
        """The encoder for training texts: looks on disk first and keeps there what it had to compute."""
        encoder = self.encoder()
        return encoder if encoder is None or self._folder is None else _KeepingEncoder(encoder, self._folder)


class _KeepingEncoder:
    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder = encoder
        self._folder = folder / "embeddings"

    def embed(self, texts: Sequence[str]) -> Floats:
        """One row per text, all from one file when exactly these texts were embedded before."""
        import numpy as np

        key = hashlib.sha256(_MODEL.encode())
        for text in texts:
            key.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        path = self._folder / f"{key.hexdigest()}.npy"
        # A broken or foreign file is a missing one: the vectors can always be computed again.
        with contextlib.suppress(OSError, ValueError, EOFError):
            kept = np.load(path, allow_pickle=False)
            if kept.shape == (len(texts), WIDTH) and kept.dtype == np.float32:
                return np.asarray(kept, dtype=np.float32)
        rows = self._encoder.embed(texts)
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}-{uuid4().hex}.part")
            with partial.open("wb") as file:
                np.save(file, rows)
            partial.replace(path)
        return rows
