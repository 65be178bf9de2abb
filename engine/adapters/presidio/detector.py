"""Presidio's recognizers of patterns and checksums, and of names where the operator has installed a spaCy pipeline.

Loaded on first use (seconds, 150 MB): importing this module loads nothing. Nothing is downloaded and nobody is called:
Presidio's own e-mail recognizer would fetch the public suffix list over the network when it meets the first address, so
it is not asked.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from engine.domain.personal_data import BY_PATTERN, Found, PersonalDataType, outside_marks

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

_LANGUAGE = "en"
_SCORE = 0.4
"""From here on a finding counts. Presidio gives a phone number without a word about phones 0.4; recall is what masking
is for."""
_BY_NAMES = frozenset({PersonalDataType.PERSON, PersonalDataType.LOCATION})


def installed() -> bool:
    """True when the extra is there, as far as can be told without loading it."""
    return find_spec("presidio_analyzer") is not None


class PresidioDetector:
    """Implements ``PersonalDataDetector``. ``model`` names an installed spaCy pipeline that knows names; without it
    none are found."""

    def __init__(self, model: str | None = None) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._loaded: AnalyzerEngine | None = None

    @property
    def types(self) -> frozenset[PersonalDataType]:
        """What it can find."""
        return frozenset(PersonalDataType if self._model is not None else BY_PATTERN)

    def find(self, text: str, types: Collection[PersonalDataType]) -> list[Found]:
        """Every piece of these types, marks aside."""
        entities = sorted(kind.value for kind in types)
        results = self._engine().analyze(text, language=_LANGUAGE, entities=entities, score_threshold=_SCORE)
        found = [Found(one.start, one.end, PersonalDataType(one.entity_type)) for one in results]
        return outside_marks(text, found)

    def _engine(self) -> AnalyzerEngine:
        with self._lock:
            if self._loaded is None:
                self._loaded = _engine(self._model)
            return self._loaded


def _engine(model: str | None) -> AnalyzerEngine:
    from presidio_analyzer import AnalyzerEngine, Pattern, RecognizerRegistry
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
        SpacyRecognizer,
        UsSsnRecognizer,
    )

    # Presidio's own patterns leave out some issuers; the check digit tells a card from another number anyway.
    any_issuer = [Pattern("13 to 19 digits", r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w.-])", _SCORE)]
    cards = CreditCardRecognizer(patterns=any_issuer)
    recognizers: list[Any] = [cards, IbanRecognizer(), IpRecognizer(), PhoneRecognizer(), UsSsnRecognizer(), _email()]
    if model is not None:
        recognizers.append(SpacyRecognizer(supported_entities=sorted(kind.value for kind in _BY_NAMES)))
    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=[_LANGUAGE])
    return AnalyzerEngine(registry=registry, nlp_engine=_nlp(model), supported_languages=[_LANGUAGE])


def _nlp(model: str | None) -> Any:
    """The language pipeline: the operator's, or an empty one that only splits text into words."""
    import spacy
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Installed(SpacyNlpEngine):  # type: ignore[misc]  # untyped base
        def load(self) -> None:
            """Load what is installed; the base class would download what is not."""
            self.nlp = {_LANGUAGE: spacy.load(model) if model is not None else spacy.blank(_LANGUAGE)}

    engine = Installed(models=[{"lang_code": _LANGUAGE, "model_name": model or "blank"}])
    engine.load()
    return engine


def _email() -> Any:
    from presidio_analyzer.predefined_recognizers import EmailRecognizer

    class AnyDomain(EmailRecognizer):  # type: ignore[misc]  # untyped base
        def validate_result(self, pattern_text: str) -> None:
            """No opinion on the domain: an address inside a company ends in no public suffix, and is a person's all the
            same."""

    return AnyDomain()
