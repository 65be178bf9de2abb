"""Microsoft Presidio behind the ``PersonalDataDetector`` port (optional extra: requirements-pii.txt)."""

from engine.adapters.presidio.detector import PresidioDetector, installed

__all__ = ["PresidioDetector", "installed"]
