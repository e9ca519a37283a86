"""Many workflows: one graph over many rows, with a journal to resume from."""

from comfycontrol_async.batch._map import Batch
from comfycontrol_async.batch._options import BatchPlan, MapProgress, MapResult

__all__ = ["Batch", "BatchPlan", "MapProgress", "MapResult"]
