"""An asyncio client for ComfyControl with a rate limiter that the server cannot fault."""
