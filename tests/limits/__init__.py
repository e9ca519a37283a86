"""Tests of the limiters, on a fake clock; each asynchronous one runs on asyncio's own loop and on uvloop."""
