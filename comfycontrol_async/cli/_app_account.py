"""The groups `runners`, `managed` and `templates`, as typer sees them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from comfycontrol_async.cli._options import Command, GraphFile, json_of, make_app
from comfycontrol_async.cli._params import read_headers

runners = make_app("Your own runners.")
managed = make_app("Managed runners.")
templates = make_app("Stored graphs.")

RunnerId = Annotated[str, typer.Argument(help="The runner's id.", metavar="ID")]
TemplateId = Annotated[str, typer.Argument(help="The template's id.", metavar="ID")]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="'NAME: VALUE'", help="A header that the service sends to it; kept secret here."),
]
RunnerTags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="What it is chosen by; at most 10.")]


class Status(StrEnum):
    """Whether a runner gets workflows."""

    ACTIVE = "active"
    DISABLED = "disabled"


def add_to(app: typer.Typer) -> None:
    """Add these groups to the program's commands."""
    app.add_typer(runners, name="runners")
    app.add_typer(managed, name="managed")
    app.add_typer(templates, name="templates")


@runners.command("ls", cls=Command)
def list_runners(
    status: Annotated[Status | None, typer.Option(metavar="STATUS", help="Only these: active or disabled.")] = None,
    as_json: Annotated[bool, json_of("a list of the fields of Runner")] = False,
) -> None:
    """List your own runners."""
    from comfycontrol_async import RunnerStatus
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    wanted = RunnerStatus(status.value) if status is not None else None
    execute(_runners.list_runners(wanted, as_json=as_json))


@runners.command("show", cls=Command)
def show_runner(id: RunnerId, as_json: Annotated[bool, json_of("the fields of Runner")] = False) -> None:
    """Show a runner; the values of its headers stay hidden."""
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    execute(_runners.show_runner(id, as_json=as_json))


@runners.command("add", cls=Command)
def add_runner(
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 100 characters.")],
    endpoint: Annotated[str, typer.Argument(metavar="URL", help="Where the service reaches your ComfyUI.")],
    headers: Headers = None,
    tags: RunnerTags = None,
    as_json: Annotated[bool, json_of("the fields of Runner")] = False,
) -> None:
    """Register a ComfyUI as a runner and print its id."""
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    given = read_headers(headers)
    execute(_runners.add_runner(name, endpoint, given, tags or [], as_json=as_json))


@runners.command("update", cls=Command)
def update_runner(
    id: RunnerId,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A new name.")] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="A new address.")] = None,
    headers: Headers = None,
    tags: RunnerTags = None,
    as_json: Annotated[bool, json_of("the fields of Runner")] = False,
) -> None:
    """Change what is given of a runner; tags and headers are replaced as a whole."""
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    given = read_headers(headers)
    execute(_runners.update_runner(id, as_json=as_json, name=name, endpoint=endpoint, headers=given, tags=tags))


@runners.command("enable", cls=Command)
def enable_runner(id: RunnerId, as_json: Annotated[bool, json_of("the fields of Runner")] = False) -> None:
    """Let a runner get workflows again."""
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    execute(_runners.update_runner(id, as_json=as_json, status=Status.ACTIVE.value))


@runners.command("disable", cls=Command)
def disable_runner(id: RunnerId, as_json: Annotated[bool, json_of("the fields of Runner")] = False) -> None:
    """Let a runner get no workflows for the time being."""
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    execute(_runners.update_runner(id, as_json=as_json, status=Status.DISABLED.value))


@runners.command("interrupt", cls=Command)
def interrupt_runner(id: RunnerId) -> None:
    """Stop what a runner executes now; for one workflow, `comfycontrol cancel` is better."""
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    execute(_runners.interrupt_runner(id))


@runners.command("history", cls=Command)
def runner_history(
    id: RunnerId, as_json: Annotated[bool, json_of("a list of the fields of WorkflowSummary")] = False
) -> None:
    """List the last 10 workflows of a runner."""
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    execute(_runners.show_history(id, managed=False, as_json=as_json))


@managed.command("ls", cls=Command)
def list_managed(as_json: Annotated[bool, json_of("a list of the fields of ManagedRunner")] = False) -> None:
    """List the managed runners that your tier may use."""
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    execute(_runners.list_managed(as_json=as_json))


@managed.command("show", cls=Command)
def show_managed(id: RunnerId, as_json: Annotated[bool, json_of("the fields of ManagedRunner")] = False) -> None:
    """Show a managed runner."""
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    execute(_runners.show_managed(id, as_json=as_json))


@managed.command("history", cls=Command)
def managed_history(
    id: RunnerId, as_json: Annotated[bool, json_of("a list of the fields of WorkflowSummary")] = False
) -> None:
    """List your last 10 workflows on a managed runner."""
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    execute(_runners.show_history(id, managed=True, as_json=as_json))


@managed.command("stats", cls=Command)
def managed_stats(id: RunnerId, as_json: Annotated[bool, json_of("the fields of RunnerStats")] = False) -> None:
    """Show the machine behind a managed runner."""
    from comfycontrol_async.cli import _runners
    from comfycontrol_async.cli._execute import execute

    execute(_runners.show_stats(id, as_json=as_json))


@templates.command("ls", cls=Command)
def list_templates(as_json: Annotated[bool, json_of("a list of the fields of TemplateSummary")] = False) -> None:
    """List your templates."""
    from comfycontrol_async.cli import _templates
    from comfycontrol_async.cli._execute import execute

    execute(_templates.list_templates(as_json=as_json))


@templates.command("show", cls=Command)
def show_template(
    id: TemplateId,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write its graph to this new file.")
    ] = None,
    as_json: Annotated[bool, json_of("the fields of Template")] = False,
) -> None:
    """Show a template and the parameters of its graph."""
    from comfycontrol_async.cli import _templates
    from comfycontrol_async.cli._execute import execute

    execute(_templates.show_template(id, output, as_json=as_json))


@templates.command("push", cls=Command)
def push_template(
    file: GraphFile,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="1 to 100 characters; default: the file's.")] = None,
    description: Annotated[
        str | None, typer.Option(metavar="WORDS", help="1 to 500 characters; default: the name.")
    ] = None,
    as_json: Annotated[bool, json_of("the fields of Template")] = False,
) -> None:
    """Store a graph as a template and print its id."""
    from comfycontrol_async.cli import _templates
    from comfycontrol_async.cli._execute import execute

    found = name or file.stem[:100] or "template"
    execute(_templates.push_template(file, found, description or found, as_json=as_json))


@templates.command("update", cls=Command)
def update_template(
    id: TemplateId,
    file: Annotated[
        Path | None, typer.Option("--graph", metavar="FILE", help="A new graph: JSON in API format, or a PNG.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A new name.")] = None,
    description: Annotated[str | None, typer.Option(metavar="WORDS", help="A new description.")] = None,
    as_json: Annotated[bool, json_of("the fields of Template")] = False,
) -> None:
    """Change what is given of a template and print its id."""
    from comfycontrol_async.cli import _templates
    from comfycontrol_async.cli._execute import execute

    execute(_templates.update_template(id, file, name, description, as_json=as_json))
