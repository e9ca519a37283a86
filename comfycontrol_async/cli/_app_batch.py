"""The commands about batches, as typer sees them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from comfycontrol_async.cli._options import Command, GraphFile, Output, Tags, Timeout, form_of, json_of, ndjson_of


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program's."""
    app.command("map", cls=Command)(map_)
    app.command(cls=Command)(journal)


def map_(
    file: GraphFile,
    rows: Annotated[
        Path, typer.Argument(metavar="ROWS", help="A table, a row for each workflow: .csv, .tsv, .jsonl or .parquet.")
    ],
    output: Output,
    journal: Annotated[
        Path, typer.Option(metavar="FILE", help="What was done so far; the same file again resumes the batch.")
    ],
    key: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that names a row.")] = None,
    name: Annotated[str, typer.Option(metavar="TEMPLATE", help="Names of workflows, from columns.")] = "{key}",
    template: Annotated[
        str | None, typer.Option(metavar="TEMPLATE", help="Names of files, from columns and {index}, {ext}.")
    ] = None,
    tags: Tags = None,
    concurrency: Annotated[int, typer.Option(min=1, metavar="N", help="Workflows that run at once.")] = 100,
    timeout: Timeout = None,
    max_failures: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Stop after more failed rows than this.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try rows that failed before again.")] = False,
    as_json: Annotated[bool, json_of("rows, done, failed, files, requests")] = False,
    as_ndjson: Annotated[
        bool,
        ndjson_of("row (key, index, id, status, paths, error), at last done (rows, done, failed, files, requests)"),
    ] = False,
) -> None:
    """Run a graph once for each row of a table, and download what it made.

    Prints the paths of the files. Ctrl-C stops it, and the same command resumes it: nothing is submitted twice.
    """
    from comfycontrol_async.cli._batch import Table, run_table
    from comfycontrol_async.cli._execute import execute

    table = Table(
        graph=file,
        rows=rows,
        output=output,
        journal=journal,
        key=key,
        name=name,
        template=template,
        tags=tags or [],
        concurrency=concurrency,
        timeout=timeout,
        max_failures=max_failures,
        retry_failed=retry_failed,
    )
    form: Any = form_of(as_json, as_ndjson)
    execute(run_table(table, form=form))


def journal(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The journal of a batch.")],
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Print the rows of this state, one JSON object a line.")
    ] = None,
    as_json: Annotated[bool, json_of("the number of rows in each state")] = False,
) -> None:
    """Show how many rows of a batch are in which state."""
    from comfycontrol_async.cli._batch import show_journal
    from comfycontrol_async.cli._execute import execute

    execute(show_journal(file, state, as_json=as_json))
