"""ComfyUI graphs: placeholders, parameters, checks, and files to upload."""

from comfycontrol_async.graph._file import File
from comfycontrol_async.graph._graph import BoundGraph, Graph, name_of
from comfycontrol_async.graph._placeholders import GraphIssue, Parameter, ParameterKind, ParameterValue

__all__ = ["BoundGraph", "File", "Graph", "GraphIssue", "Parameter", "ParameterKind", "ParameterValue", "name_of"]
