"""The JSON examples of the API documentation, as the service would send them."""

from typing import Any

RUNNER_ID = "550e8400-e29b-41d4-a716-446655440000"
USER_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
WORKFLOW_ID = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
# The page's own example, which is no valid UUID.
TEMPLATE_ID = "t1e2m3p4-l5a6-7890-abcd-ef1234567890"

Json = dict[str, Any]

RUNNER: Json = {
    "id": RUNNER_ID,
    "user_id": USER_ID,
    "name": "Production GPU Runner",
    "status": "active",
    "endpoint": "https://my-comfy.example.com",
    "tags": ["production", "gpu-a100"],
    "headers": {"Authorization": "Bearer secret_token"},
    "created_at": "2024-01-15T10:30:00Z",
    "updated_at": "2024-01-15T10:30:00Z",
}
RUNNERS: Json = {
    "runners": [
        RUNNER,
        {
            "id": "660e8400-e29b-41d4-a716-446655440001",
            "user_id": USER_ID,
            "name": "Development Runner",
            "status": "active",
            "endpoint": "http://192.168.1.100:8188",
            "tags": ["development", "cpu"],
            "headers": {},
            "created_at": "2024-01-14T08:20:00Z",
            "updated_at": "2024-01-14T08:20:00Z",
        },
    ],
    "total": 2,
}
MANAGED_RUNNER: Json = {
    "id": WORKFLOW_ID,
    "name": "Managed Pro Runner 1",
    "runner_type": "pro",
    "status": "active",
    "tags": ["managed", "gpu-a100", "high-performance"],
    "created_at": "2024-01-10T08:00:00Z",
    "updated_at": "2024-01-15T10:30:00Z",
}
MANAGED_RUNNERS: Json = {
    "runners": [
        MANAGED_RUNNER,
        {
            "id": "b2c3d4e5-f6a7-8901-bcde-f12345678901",
            "name": "Managed Plus Runner 1",
            "runner_type": "plus",
            "status": "active",
            "tags": ["managed", "gpu-rtx4090", "standard"],
            "created_at": "2024-01-10T08:00:00Z",
            "updated_at": "2024-01-15T10:30:00Z",
        },
    ],
    "total": 2,
}
STATS: Json = {
    "system": {
        "os": "posix",
        "ram_free": 239499096064,
        "ram_total": 253344550912,
        "comfyui_version": "0.3.77",
        "python_version": "3.12.12 (main, Oct 15 2025, 09:00:00)",
    },
    "devices": [{"name": "cuda:0", "type": "cuda", "vram_total": 85899345920, "vram_free": 84000000000}],
    "dev_mode": False,
    "extensions": ["ComfyUI-Manager"],
}
HISTORY: list[Json] = [
    {
        "id": WORKFLOW_ID,
        "name": "Text to Image Generation",
        "status": "completed",
        "tags": ["text2img", "production"],
        "created_at": "2024-01-15T14:30:00Z",
        "updated_at": "2024-01-15T14:32:15Z",
        "started_at": "2024-01-15T14:30:05Z",
        "completed_at": "2024-01-15T14:32:15Z",
    },
    {
        "id": "b2c3d4e5-f6a7-8901-bcde-f12345678901",
        "name": "Image Upscaling",
        "status": "failed",
        "tags": ["upscale", "production"],
        "created_at": "2024-01-15T13:15:00Z",
        "updated_at": "2024-01-15T13:16:30Z",
        "started_at": "2024-01-15T13:15:10Z",
        "completed_at": "2024-01-15T13:16:30Z",
    },
    {
        "id": "c3d4e5f6-a7b8-9012-cdef-123456789012",
        "name": "ControlNet Test",
        "status": "running",
        "tags": ["controlnet", "test"],
        "created_at": "2024-01-15T12:00:00Z",
        "updated_at": "2024-01-15T12:01:45Z",
        "started_at": "2024-01-15T12:00:20Z",
        "completed_at": None,
    },
]
WORKFLOWS: Json = {"workflows": HISTORY, "total": 3}
ACCEPTED: Json = {
    "id": WORKFLOW_ID,
    "name": "Text to Image Generation",
    "status": "accepted",
    "tags": ["production", "text2img"],
    "created_at": "2024-01-15T14:30:00Z",
    "updated_at": "2024-01-15T14:30:00Z",
    "started_at": None,
    "completed_at": None,
}
WORKFLOW: Json = {
    "id": WORKFLOW_ID,
    "user_id": USER_ID,
    "name": "Text to Image Generation",
    "status": "completed",
    "user_runner_id": RUNNER_ID,
    "managed_runner_id": None,
    "tags": ["production", "text2img"],
    "workflow_json": {"nodes": [], "links": [], "config": {}},
    "workflow_params": [
        ["$text(prompt)", "A beautiful sunset over mountains"],
        ["#choice(sampler)", "euler_ancestral"],
    ],
    "prompt_id": "8f3a9c2b-1234-5678-9abc-def012345678",
    "queue_number": 1,
    "error_node": None,
    "exception_type": None,
    "exception_message": None,
    "created_at": "2024-01-15T14:30:00Z",
    "updated_at": "2024-01-15T14:32:15Z",
    "started_at": "2024-01-15T14:30:05Z",
    "completed_at": "2024-01-15T14:32:15Z",
}
OUTPUTS: list[Json] = [
    {
        "id": "output-1a2b3c4d-5e6f-7890-abcd-ef1234567890",
        "workflow_id": WORKFLOW_ID,
        "src": "https://storage.comfycontrol.app/outputs/a1b2c3d4/image001.png?signature=secret_signature",
    },
    {
        "id": "output-3c4d5e6f-7a8b-9012-cdef-123456789012",
        "workflow_id": WORKFLOW_ID,
        "src": "https://storage.comfycontrol.app/outputs/a1b2c3d4/video.mp4?signature=secret_signature",
    },
]
UPDATES: list[Json] = [
    {
        "status": "queued",
        "prompt": None,
        "queue_number": 3,
        "outputs": [],
        "cause": None,
        "started_at": None,
        "completed_at": None,
    },
    {
        "status": "running",
        "prompt": {"prompt_id": "abc123"},
        "queue_number": 1,
        "outputs": [],
        "cause": None,
        "started_at": "2024-01-15T14:30:05Z",
        "completed_at": None,
    },
    {
        "status": "completed",
        "prompt": {"prompt_id": "abc123"},
        "queue_number": None,
        "outputs": OUTPUTS[:1],
        "cause": None,
        "started_at": "2024-01-15T14:30:05Z",
        "completed_at": "2024-01-15T14:32:15Z",
    },
]
TEMPLATE_SUMMARY: Json = {
    "id": TEMPLATE_ID,
    "user_id": USER_ID,
    "name": "Text to Image - Standard",
    "description": "Basic text-to-image generation with SDXL",
    "created_at": "2024-01-15T10:00:00Z",
    "updated_at": "2024-01-15T10:00:00Z",
}
TEMPLATES: Json = {"templates": [TEMPLATE_SUMMARY], "total": 1}
TEMPLATE: Json = {**TEMPLATE_SUMMARY, "body": {"nodes": [], "links": [], "config": {}}}
# The page's own example, without the `provider` that the page calls required.
USER: Json = {
    "id": USER_ID,
    "name": "John Doe",
    "email": "john@example.com",
    "deleted": False,
    "tier": "pro",
    "created_at": "2024-01-01T00:00:00Z",
    "updated_at": "2024-01-15T10:30:00Z",
}
# A graph that asks for one of each kind, after the documentation's concept page.
GRAPH: Json = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": "$random()",
            "steps": "$text(num_steps, 20)",
            "sampler_name": "$choice(sampler, euler, euler_ancestral, dpmpp_2m)",
        },
    },
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "$text(prompt)"}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "$timestamp()"}},
    "10": {"class_type": "LoadImage", "inputs": {"image": "$file(input_image)"}},
}
