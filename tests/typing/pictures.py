"""Typed functions for ComfyUI workflows, written by `comfycontrol types`.

Write it anew when a workflow changes, and change nothing here.
"""

from pathlib import Path
from typing import Literal

from comfycontrol_async import ComfyControl, File, Graph, WorkflowRun

_MF01_EMPTY_SAVE = Graph(
    {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {
                "batch_size": 1,
                "color": "$text(color, 3368601)",
                "height": "$text(height, 256)",
                "width": "$text(width, 256)",
            },
            "_meta": {
                "title": "EmptyImage",
            },
        },
        "2": {
            "class_type": "SaveImage",
            "inputs": {
                "filename_prefix": "$text(prefix, mf01)",
                "images": ["1", 0],
            },
            "_meta": {
                "title": "Save",
            },
        },
    }
)


async def mf01_empty_save(
    comfy: ComfyControl,
    *,
    color: float | str = 3368601,
    height: float | str = 256,
    prefix: str = "mf01",
    width: float | str = 256,
    timeout: float | None = None,
) -> WorkflowRun:
    """Run the workflow mf01_empty_save, and wait for it.

    Args:
        comfy: the client that runs it.
        color: color of EmptyImage
        height: height of EmptyImage
        prefix: filename_prefix of Save (SaveImage)
        width: width of EmptyImage
        timeout: seconds to wait; None waits as long as it takes.

    Raises:
        WorkflowFailedError, WorkflowCancelledError, WaitTimeoutError: it did not complete.
    """
    return await comfy.run(
        _MF01_EMPTY_SAVE,
        params={
            "color": color,
            "height": height,
            "prefix": prefix,
            "width": width,
        },
        timeout=timeout,
    )


_MF02_SCALE_INVERT = Graph(
    {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {
                "batch_size": 1,
                "color": 16744448,
                "height": 240,
                "width": 320,
            },
            "_meta": {
                "title": "EmptyImage",
            },
        },
        "2": {
            "class_type": "ImageScale",
            "inputs": {
                "crop": "$choice(crop, center, disabled)",
                "height": "$text(height, 512)",
                "image": ["1", 0],
                "upscale_method": "$choice(method, bilinear, lanczos, area, nearest-exact)",
                "width": "$text(width, 512)",
            },
            "_meta": {
                "title": "ImageScale",
            },
        },
        "3": {
            "class_type": "ImageInvert",
            "inputs": {
                "image": ["2", 0],
            },
            "_meta": {
                "title": "ImageInvert",
            },
        },
        "4": {
            "class_type": "SaveImage",
            "inputs": {
                "filename_prefix": "$timestamp()",
                "images": ["3", 0],
            },
            "_meta": {
                "title": "Save",
            },
        },
    }
)


async def mf02_scale_invert(
    comfy: ComfyControl,
    *,
    crop: Literal["center", "disabled"] = "center",
    height: float | str = 512,
    method: Literal["bilinear", "lanczos", "area", "nearest-exact"] = "bilinear",
    width: float | str = 512,
    timeout: float | None = None,
) -> WorkflowRun:
    """Run the workflow mf02_scale_invert, and wait for it.

    Args:
        comfy: the client that runs it.
        crop: crop of ImageScale
        height: height of ImageScale
        method: upscale_method of ImageScale
        width: width of ImageScale
        timeout: seconds to wait; None waits as long as it takes.

    Raises:
        WorkflowFailedError, WorkflowCancelledError, WaitTimeoutError: it did not complete.
    """
    return await comfy.run(
        _MF02_SCALE_INVERT,
        params={
            "crop": crop,
            "height": height,
            "method": method,
            "width": width,
        },
        timeout=timeout,
    )


_MF03_LOAD_BLEND = Graph(
    {
        "1": {
            "class_type": "LoadImage",
            "inputs": {
                "image": "$file(image)",
            },
            "_meta": {
                "title": "Input image",
            },
        },
        "2": {
            "class_type": "ImageScale",
            "inputs": {
                "crop": "center",
                "height": 384,
                "image": ["1", 0],
                "upscale_method": "lanczos",
                "width": 384,
            },
            "_meta": {
                "title": "ImageScale",
            },
        },
        "3": {
            "class_type": "EmptyImage",
            "inputs": {
                "batch_size": 1,
                "color": 255,
                "height": 384,
                "width": 384,
            },
            "_meta": {
                "title": "EmptyImage",
            },
        },
        "4": {
            "class_type": "ImageBlend",
            "inputs": {
                "blend_factor": "$text(blend, 0.35)",
                "blend_mode": "$choice(mode, screen, multiply, overlay, normal)",
                "image1": ["2", 0],
                "image2": ["3", 0],
            },
            "_meta": {
                "title": "ImageBlend",
            },
        },
        "5": {
            "class_type": "SaveImage",
            "inputs": {
                "filename_prefix": "$text(prefix, mf03)",
                "images": ["4", 0],
            },
            "_meta": {
                "title": "Save",
            },
        },
    }
)


async def mf03_load_blend(
    comfy: ComfyControl,
    *,
    image: File | Path | bytes,
    blend: float | str = 0.35,
    mode: Literal["screen", "multiply", "overlay", "normal"] = "screen",
    prefix: str = "mf03",
    timeout: float | None = None,
) -> WorkflowRun:
    """Run the workflow mf03_load_blend, and wait for it.

    Args:
        comfy: the client that runs it.
        image: image of Input image (LoadImage)
        blend: blend_factor of ImageBlend
        mode: blend_mode of ImageBlend
        prefix: filename_prefix of Save (SaveImage)
        timeout: seconds to wait; None waits as long as it takes.

    Raises:
        WorkflowFailedError, WorkflowCancelledError, WaitTimeoutError: it did not complete.
    """
    return await comfy.run(
        _MF03_LOAD_BLEND,
        params={
            "image": image,
            "blend": blend,
            "mode": mode,
            "prefix": prefix,
        },
        timeout=timeout,
    )


_MF05_NOISE_SEED = Graph(
    {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {
                "batch_size": 1,
                "color": 8421504,
                "height": 256,
                "width": 256,
            },
            "_meta": {
                "title": "EmptyImage",
            },
        },
        "2": {
            "class_type": "ImageAddNoise",
            "inputs": {
                "image": ["1", 0],
                "seed": "$random()",
                "strength": "$text(strength, 0.5)",
            },
            "_meta": {
                "title": "Noise",
            },
        },
        "3": {
            "class_type": "SaveImage",
            "inputs": {
                "filename_prefix": "$timestamp()",
                "images": ["2", 0],
            },
            "_meta": {
                "title": "Save",
            },
        },
    }
)


async def mf05_noise_seed(
    comfy: ComfyControl,
    *,
    strength: float | str = 0.5,
    timeout: float | None = None,
) -> WorkflowRun:
    """Run the workflow mf05_noise_seed, and wait for it.

    Args:
        comfy: the client that runs it.
        strength: strength of Noise (ImageAddNoise)
        timeout: seconds to wait; None waits as long as it takes.

    Raises:
        WorkflowFailedError, WorkflowCancelledError, WaitTimeoutError: it did not complete.
    """
    return await comfy.run(
        _MF05_NOISE_SEED,
        params={
            "strength": strength,
        },
        timeout=timeout,
    )


_SD01_TXT2IMG = Graph(
    {
        "1": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {
                "ckpt_name": "v1-5-pruned-emaonly.safetensors",
            },
            "_meta": {
                "title": "Model",
            },
        },
        "2": {
            "class_type": "CLIPTextEncode",
            "inputs": {
                "clip": ["1", 1],
                "text": "$text(prompt)",
            },
            "_meta": {
                "title": "Positive",
            },
        },
        "3": {
            "class_type": "CLIPTextEncode",
            "inputs": {
                "clip": ["1", 1],
                "text": "$text(negative, blurry)",
            },
            "_meta": {
                "title": "Negative",
            },
        },
        "4": {
            "class_type": "EmptyLatentImage",
            "inputs": {
                "batch_size": 1,
                "height": "$text(height, 256)",
                "width": "$text(width, 256)",
            },
            "_meta": {
                "title": "Size",
            },
        },
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "cfg": "$text(cfg, 7.0)",
                "denoise": 1.0,
                "latent_image": ["4", 0],
                "model": ["1", 0],
                "negative": ["3", 0],
                "positive": ["2", 0],
                "sampler_name": "$choice(sampler, euler, dpmpp_2m, ddim, lcm)",
                "scheduler": "$choice(scheduler, normal, karras)",
                "seed": "$random()",
                "steps": "$text(steps, 4)",
            },
            "_meta": {
                "title": "Sampler",
            },
        },
        "6": {
            "class_type": "VAEDecode",
            "inputs": {
                "samples": ["5", 0],
                "vae": ["1", 2],
            },
            "_meta": {
                "title": "VAEDecode",
            },
        },
        "7": {
            "class_type": "SaveImage",
            "inputs": {
                "filename_prefix": "$timestamp()",
                "images": ["6", 0],
            },
            "_meta": {
                "title": "Save",
            },
        },
    }
)


async def sd01_txt2img(
    comfy: ComfyControl,
    *,
    prompt: str,
    cfg: float | str = 7.0,
    height: float | str = 256,
    negative: str = "blurry",
    sampler: Literal["euler", "dpmpp_2m", "ddim", "lcm"] = "euler",
    scheduler: Literal["normal", "karras"] = "normal",
    steps: float | str = 4,
    width: float | str = 256,
    timeout: float | None = None,
) -> WorkflowRun:
    """Run the workflow sd01_txt2img, and wait for it.

    Args:
        comfy: the client that runs it.
        prompt: text of Positive (CLIPTextEncode)
        cfg: cfg of Sampler (KSampler)
        height: height of Size (EmptyLatentImage)
        negative: text of Negative (CLIPTextEncode)
        sampler: sampler_name of Sampler (KSampler)
        scheduler: scheduler of Sampler (KSampler)
        steps: steps of Sampler (KSampler)
        width: width of Size (EmptyLatentImage)
        timeout: seconds to wait; None waits as long as it takes.

    Raises:
        WorkflowFailedError, WorkflowCancelledError, WaitTimeoutError: it did not complete.
    """
    return await comfy.run(
        _SD01_TXT2IMG,
        params={
            "prompt": prompt,
            "cfg": cfg,
            "height": height,
            "negative": negative,
            "sampler": sampler,
            "scheduler": scheduler,
            "steps": steps,
            "width": width,
        },
        timeout=timeout,
    )


_SD02_IMG2IMG = Graph(
    {
        "1": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {
                "ckpt_name": "v1-5-pruned-emaonly.safetensors",
            },
            "_meta": {
                "title": "Model",
            },
        },
        "2": {
            "class_type": "CLIPTextEncode",
            "inputs": {
                "clip": ["1", 1],
                "text": "$text(prompt)",
            },
            "_meta": {
                "title": "Positive",
            },
        },
        "3": {
            "class_type": "CLIPTextEncode",
            "inputs": {
                "clip": ["1", 1],
                "text": "$text(negative, blurry)",
            },
            "_meta": {
                "title": "Negative",
            },
        },
        "4": {
            "class_type": "VAEEncode",
            "inputs": {
                "pixels": ["9", 0],
                "vae": ["1", 2],
            },
            "_meta": {
                "title": "VAEEncode",
            },
        },
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "cfg": "$text(cfg, 7.0)",
                "denoise": "$text(denoise, 0.6)",
                "latent_image": ["4", 0],
                "model": ["1", 0],
                "negative": ["3", 0],
                "positive": ["2", 0],
                "sampler_name": "$choice(sampler, euler, dpmpp_2m, ddim, lcm)",
                "scheduler": "$choice(scheduler, normal, karras)",
                "seed": "$random()",
                "steps": "$text(steps, 4)",
            },
            "_meta": {
                "title": "Sampler",
            },
        },
        "6": {
            "class_type": "VAEDecode",
            "inputs": {
                "samples": ["5", 0],
                "vae": ["1", 2],
            },
            "_meta": {
                "title": "VAEDecode",
            },
        },
        "7": {
            "class_type": "SaveImage",
            "inputs": {
                "filename_prefix": "$timestamp()",
                "images": ["6", 0],
            },
            "_meta": {
                "title": "Save",
            },
        },
        "8": {
            "class_type": "LoadImage",
            "inputs": {
                "image": "$file(image)",
            },
            "_meta": {
                "title": "Input image",
            },
        },
        "9": {
            "class_type": "ImageScale",
            "inputs": {
                "crop": "center",
                "height": "$text(height, 256)",
                "image": ["8", 0],
                "upscale_method": "bilinear",
                "width": "$text(width, 256)",
            },
            "_meta": {
                "title": "ImageScale",
            },
        },
    }
)


async def sd02_img2img(
    comfy: ComfyControl,
    *,
    image: File | Path | bytes,
    prompt: str,
    cfg: float | str = 7.0,
    denoise: float | str = 0.6,
    height: float | str = 256,
    negative: str = "blurry",
    sampler: Literal["euler", "dpmpp_2m", "ddim", "lcm"] = "euler",
    scheduler: Literal["normal", "karras"] = "normal",
    steps: float | str = 4,
    width: float | str = 256,
    timeout: float | None = None,
) -> WorkflowRun:
    """Run the workflow sd02_img2img, and wait for it.

    Args:
        comfy: the client that runs it.
        image: image of Input image (LoadImage)
        prompt: text of Positive (CLIPTextEncode)
        cfg: cfg of Sampler (KSampler)
        denoise: denoise of Sampler (KSampler)
        height: height of ImageScale
        negative: text of Negative (CLIPTextEncode)
        sampler: sampler_name of Sampler (KSampler)
        scheduler: scheduler of Sampler (KSampler)
        steps: steps of Sampler (KSampler)
        width: width of ImageScale
        timeout: seconds to wait; None waits as long as it takes.

    Raises:
        WorkflowFailedError, WorkflowCancelledError, WaitTimeoutError: it did not complete.
    """
    return await comfy.run(
        _SD02_IMG2IMG,
        params={
            "image": image,
            "prompt": prompt,
            "cfg": cfg,
            "denoise": denoise,
            "height": height,
            "negative": negative,
            "sampler": sampler,
            "scheduler": scheduler,
            "steps": steps,
            "width": width,
        },
        timeout=timeout,
    )
