"""A web service that makes pictures: submit one, follow it by server-sent events, fetch it.

    pip install comfycontrol-async fastapi uvicorn
    COMFYCONTROL_API_TOKEN=cfc_... uvicorn service:app --workers 4

The four workers share one budget of requests by themselves. `key` makes a POST that is sent twice harmless.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from comfycontrol_async import ComfyControl, Graph, Priority, WorkflowRun, WorkflowSummary
from comfycontrol_async.errors import InvalidArgumentError, NotFoundError, WorkflowError
from comfycontrol_async.ext.fastapi import get_comfy, lifespan

GRAPH = Graph.load(Path(__file__).with_name("picture.json"))

app = FastAPI(lifespan=lifespan)
# What this worker made: such a run knows what was seen of it, where another worker has to ask.
runs: dict[str, WorkflowRun] = {}


def interactive(comfy: Annotated[ComfyControl, Depends(get_comfy)]) -> ComfyControl:
    """Let people who wait go before everything else that uses this budget."""
    return comfy.with_options(priority=Priority.INTERACTIVE)


Comfy = Annotated[ComfyControl, Depends(interactive)]


class Wanted(BaseModel):
    """What a picture is made of."""

    color: int
    key: str | None = None


@app.post("/pictures", status_code=202)
async def submit(wanted: Wanted, comfy: Comfy) -> WorkflowSummary:
    """Submit a picture; the answer has its id."""
    run = await comfy.submit(GRAPH, name="picture", params={"color": wanted.color}, key=wanted.key)
    assert run.workflow is not None  # submit knows what it made
    runs[run.id] = run
    return run.workflow


@app.get("/pictures/{id}/progress")
async def progress(id: str, comfy: Comfy) -> StreamingResponse:
    """Send an event each time that its state changes, at most one a second."""
    run = runs.get(id) or comfy.get_run(id)

    async def events() -> AsyncIterator[str]:
        async for update in run.updates(min_interval=1.0):
            yield f"data: {json.dumps({'status': update.status, 'queue': update.queue_number})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/pictures/{id}", response_class=Response)
async def picture(id: str, comfy: Comfy) -> Response:
    """Wait for a picture and send it."""
    try:
        run = runs.pop(id, None) or comfy.get_run(id)
        await run.wait(timeout=600)
        file = (await run.files())[0]
        return Response(await file.read(max_bytes=50_000_000), media_type=file.media_type)
    except NotFoundError as error:
        raise HTTPException(404, str(error)) from error
    except InvalidArgumentError as error:
        raise HTTPException(422, str(error)) from error
    except WorkflowError as error:
        raise HTTPException(502, str(error)) from error
