"""Perform one step: authorise → reserve → intent → call → check → result → settle. The only door to any effect.

Whoever wants a capability to run comes through here: plain steps, items of maps, compensations, and later fallbacks.
"""

from engine.step_runner.asked import known_question, record_voided
from engine.step_runner.closing import finish_run
from engine.step_runner.handover import send_command
from engine.step_runner.maps import collect_map, expand_map
from engine.step_runner.meanwhile import record_meanwhile
from engine.step_runner.perform import perform_step
from engine.step_runner.progress import ProgressReporter
from engine.step_runner.returns import parse_command, parse_result, take_back
from engine.step_runner.reuse import reuse_finished
from engine.step_runner.suspension import SUSPENDABLE, held
from engine.step_runner.task import StepTask, task_of
from engine.step_runner.undo import undo_step

__all__ = [
    "SUSPENDABLE",
    "ProgressReporter",
    "StepTask",
    "collect_map",
    "expand_map",
    "finish_run",
    "held",
    "known_question",
    "parse_command",
    "parse_result",
    "perform_step",
    "record_meanwhile",
    "record_voided",
    "reuse_finished",
    "send_command",
    "take_back",
    "task_of",
    "undo_step",
]
