"""Rate limiters: what keeps the client below the server's limit."""

from comfycontrol_async.limits._lanes import Priority, Stage
from comfycontrol_async.limits._memory import LocalLimiter
from comfycontrol_async.limits._permit import Permit
from comfycontrol_async.limits._protocol import Limiter, RateLimitSnapshot

__all__ = ["Limiter", "LocalLimiter", "Permit", "Priority", "RateLimitSnapshot", "Stage"]
