"""MapVerb: the verb `map` of a client."""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

from comfycontrol_async.batch._options import BatchOptions, Key, OnEnd, Params
from comfycontrol_async.batch._results import MapProgress, MapResult
from comfycontrol_async.batch._row_work import BatchTools
from comfycontrol_async.batch._rows import Rows
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.graph._issues import raise_errors
from comfycontrol_async.resources._calls import GraphSource


class MapVerb(ABC):
    """What a client that can run batches is."""

    @abstractmethod
    def _batch_tools(self) -> BatchTools:
        """Return what a batch needs of the client."""

    def map(
        self,
        graph: GraphSource,
        rows: Rows,
        *,
        key: Key | None = None,
        name: str = "{key}",
        tags: Iterable[str] = (),
        params: Params | None = None,
        concurrency: int = 100,
        ordered: bool = False,
        outputs: bool = True,
        download_to: str | os.PathLike[str] | None = None,
        template: str | None = None,
        journal: str | os.PathLike[str] | None = None,
        retry_failed: bool = False,
        timeout: float | None = None,
        on_timeout: OnEnd = "detach",
        on_cancel: OnEnd = "detach",
        max_failures: int | None = None,
        on_progress: Callable[[MapProgress], object] | None = None,
    ) -> AsyncGenerator[MapResult, None]:
        """Run one graph over many rows of parameters, and give a `MapResult` for each.

        One failure never ends the batch: it is the `error` of its row. What would fail every row does: a token that is
        refused, a closed client, columns of the first row that cannot be right.

        Columns that have the name of a parameter are its values; None and NaN mean "left out", so that the default
        counts. The others ride along in `MapResult.row`; one log line names them. A column that is called nearly like a
        parameter without a column is an error at the first row, before anything is sent.

        Args:
            graph: as `submit`.
            rows: mappings, or objects with named fields (attrs, dataclasses, pydantic, named tuples, `sqlite3.Row`), of
                any iterable or async iterable, read lazily; or the path of a table: .csv, .tsv, .jsonl, or .parquet
                (extra `tables`). A text for a `$file` is a path, relative to the table, else to the working directory.
            key: what tells rows apart: a column, or a function of the row; default: the row's index. A later row with
                a used key fails. It promises nothing across starts without a journal (that is what `submit(key=)` is
                for).
            name: what the workflows' names begin with, from `{key}`, `{index}` and columns, such as `{title}`;
                something unique comes behind it.
            tags: as `submit`; each may have columns in it. One that nothing is left of is left out.
            params: which columns are parameters: their names, or a function of the row that returns parameter names
                with values. Nearly equal names are not looked for then.
            concurrency: how many workflows are unfinished at once, at the most.
            ordered: whether results come in the order of rows instead of as they come.
            outputs: whether the outputs are wanted: one request for each workflow.
            download_to: a directory to fetch the outputs into. A file can be made there, or nothing is sent.
            template: the files' names below it, with `/` between folders: `{key}`, `{index}` (of the output, from 1),
                `{ext}` and columns, such as "{album}/{key}-{index:03}{ext}"; default: "{key}-{index:03}{ext}".
            journal: a SQLite file, readable by its owner alone. Started again with the same file, nothing is submitted
                twice, what runs is waited for, what could not be submitted is tried again, and what is done comes from
                the file. A row is recognised by its key and by what is sent for it: numbers as the text that is sent,
                streams and files by their content. While it is in use, and after a kill, `<journal>-wal` belongs to it:
                copy, move and keep both. `Journal.open` reads it.
            retry_failed: whether rows whose workflow failed, was cancelled or is gone are submitted again.
            timeout: seconds to wait for each workflow.
            on_timeout: what happens then at the service: "detach" lets it run on, and a journal waits for it again;
                "cancel" cancels it, and it counts as failed.
            on_cancel: what happens to the workflows that run when the batch is cancelled or left by `break`: "detach"
                lets them run on; "cancel" cancels them, within 30 s and a quarter of a second for each, and a journal
                submits them again. Rows that are not sent are dropped either way.
            max_failures: how many rows may fail before no more are begun; then `TooManyFailuresError`, last.
            on_progress: called with a `MapProgress` whenever something changes, and once a second; may be a coroutine
                function.

        Raises:
            GraphError, InvalidArgumentError: the graph, an option or every row is invalid; nothing was sent.
            ConfigurationError: the journal cannot be used, is damaged, or belongs to another graph or API address.
            TooManyFailuresError, AuthenticationError, ClientClosedError: as said above.
            What `rows` or `on_progress` raise: after the results of the rows that were read, or at once.
        """
        options = BatchOptions(
            key=key,
            name=name,
            tags=tags,
            params=params,
            concurrency=concurrency,
            ordered=ordered,
            outputs=outputs or download_to is not None,
            download_to=download_to,
            template=template,
            journal=journal,
            retry_failed=retry_failed,
            timeout=timeout,
            on_timeout=on_timeout,
            on_cancel=on_cancel,
            max_failures=max_failures,
            on_progress=on_progress,
        )
        return self._map(graph, rows, options)

    async def _map(self, graph: GraphSource, rows: Rows, options: BatchOptions) -> AsyncGenerator[MapResult, None]:
        from comfycontrol_async.batch._map import Batch  # what only batches need is loaded when they begin

        known = await asyncio.to_thread(Graph.coerce, graph)
        raise_errors(known.check())
        batch = Batch(self._batch_tools(), known, options, rows)
        async with aclosing(batch.results()) as results:
            async for result in results:
                yield result
