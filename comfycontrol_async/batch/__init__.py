"""Many workflows: one graph over many rows, with a journal to resume from."""

from comfycontrol_async.batch._journal import Journal
from comfycontrol_async.batch._journal_entry import JournalEntry, JournalState
from comfycontrol_async.batch._plan import BatchPlan
from comfycontrol_async.batch._results import MapProgress, MapResult

__all__ = ["BatchPlan", "Journal", "JournalEntry", "JournalState", "MapProgress", "MapResult"]
