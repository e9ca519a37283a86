"""Rate limiters: what keeps the client below the server's limit."""

from comfycontrol_async.limits._lanes import Priority
from comfycontrol_async.limits._limiter import Limiter, LocalLimiter, RateLimitSnapshot
from comfycontrol_async.limits._permit import Permit

__all__ = ["Limiter", "LocalLimiter", "Permit", "Priority", "RateLimitSnapshot"]
