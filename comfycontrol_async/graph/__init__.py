"""ComfyUI graphs: placeholders, parameters, checks, and files to upload."""

from comfycontrol_async.graph._definitions import NodeDefinitions
from comfycontrol_async.graph._file import File
from comfycontrol_async.graph._graph import BoundGraph, Graph
from comfycontrol_async.graph._issues import GraphIssue
from comfycontrol_async.graph._names import name_of
from comfycontrol_async.graph._parameters import ParameterValue
from comfycontrol_async.graph._placeholders import Parameter, ParameterKind

__all__ = [
    "BoundGraph",
    "File",
    "Graph",
    "GraphIssue",
    "NodeDefinitions",
    "Parameter",
    "ParameterKind",
    "ParameterValue",
    "name_of",
]
