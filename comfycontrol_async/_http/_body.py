"""Bodies read to their end or to a bound, counted after decompression: a megabyte on the wire may unpack to a gigabyte.

aiohttp unpacks a piece when the one before was taken, so what is not read takes no memory.
"""

import aiohttp

from comfycontrol_async._clock import Clock

# Of JSON, and of an error page. The largest answer of the API is a page of 100 workflows, some 60 kB.
MOST_JSON = 64 * 1024 * 1024
MOST_PAGE = 64 * 1024
# So much may be unpacked before other tasks get their turn: some 2 ms.
_AT_A_TIME = 1024 * 1024


class TooLargeError(Exception):
    """A body is larger than its bound."""


async def read_body(answer: aiohttp.ClientResponse, most: int, clock: Clock) -> bytes | bytearray:
    """Read a body to its end, and release the connection.

    Raises:
        TooLargeError: it is larger than `most` bytes; the connection is dropped.
    """
    content = answer.content
    body: bytes | bytearray = await content.readany()
    if content.at_eof() and len(body) <= most:
        return body
    body = bytearray(body)
    unrested = 0
    while len(body) <= most:
        piece = await content.readany()
        if not piece:
            return body
        body += piece
        unrested += len(piece)
        if unrested >= _AT_A_TIME:
            unrested = 0
            await clock.sleep(0.0)
    answer.close()
    raise TooLargeError


async def read_beginning(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """Read at most `most` bytes of a body; when there are more, the connection is dropped."""
    content = answer.content
    body = bytearray()
    while len(body) <= most:
        piece = await content.readany()
        if not piece:
            break
        body += piece
    else:
        answer.close()
    return bytes(body[:most])
