"""What timm's networks say of themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

from castream_jax.data.imagenet import imagenet_classes
from castream_jax.importing.network import Network


def open_timm() -> Any:
    """The package timm; torchvision, which it needs, may lack its compiled operators, which no network here uses.

    Raises:
        ImportError: if it is not installed, with what to install.
    """
    try:
        try:
            import timm  # pyright: ignore[reportMissingImports]
        except RuntimeError:  # operator torchvision::nms does not exist
            import torch  # pyright: ignore[reportMissingImports]

            open_timm.library = torch.library.Library("torchvision", "DEF")  # pyright: ignore[reportFunctionMemberAccess]
            for name in ("nms", "qnms"):
                open_timm.library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")  # pyright: ignore[reportFunctionMemberAccess]
            import timm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"{error.name or error} is not installed, which timm's networks need: pip install 'castream_jax[torch]'."
        ) from error
    return timm


def is_timm(module: Any) -> bool:
    """Whether a module is one of timm's classifiers."""
    return type(module).__module__.startswith("timm.") and hasattr(module, "pretrained_cfg")


def describe_timm(module: Any, image_size: int | None, taps: Sequence[str] | None) -> Network:
    """A network of timm; image size and taps are as timm says where they are None.

    Raises:
        ValueError: if it has no feature maps that timm knows of, or takes images of another size alone.
    """
    config = module.pretrained_cfg
    name = f"timm:{config.get('architecture') or type(module).__name__}"
    if not hasattr(module, "forward_features") or not hasattr(module, "forward_head"):
        raise ValueError(f"{name} has no forward_features and forward_head, so where its maps end is not known.")
    size = config["input_size"][-1] if image_size is None else image_size
    embed = getattr(module, "patch_embed", None)
    own_size = getattr(embed, "img_size", None)
    if config.get("fixed_input_size") and own_size is not None and getattr(embed, "strict_img_size", True):
        own_size = (own_size, own_size) if isinstance(own_size, int) else tuple(own_size)
        if (size, size) != own_size and image_size is not None:
            raise ValueError(
                f"{name} takes images of {own_size[0]} x {own_size[1]} pixels alone, got image_size={size}: make it "
                f"with img_size={size}."
            )
        size = own_size[0]
    grid = getattr(embed, "grid_size", None)
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False  # the same numbers; the fused form is decomposed into more operations
    prefix = int(getattr(module, "num_prefix_tokens", 0) or 0)
    pooled, target = "average", None
    if getattr(module, "attn_pool", None) is not None:
        pooled = "attn_pool"
    elif getattr(module, "global_pool", "") == "token" and prefix:
        pooled = "token"
    if pooled != "average":
        target = _target(module, name)
    return Network(
        name=name,
        module=module,
        image_size=size,
        mean=config["mean"],
        std=config["std"],
        taps=tuple(taps) if taps is not None else _taps(module, name),
        last="forward_features",
        pooled=pooled,
        prefix_tokens=prefix,
        grid=None if grid is None else tuple(grid),
        target=target,
        attention=_attention(module),
        class_names=tuple(config.get("label_names") or _imagenet_names(module, config)),
    )


def _imagenet_names(module: Any, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of ImageNet's classes where the published weights are of these: `resnet50.a1_in1k`."""
    names = tuple(imagenet_classes().values())
    is_imagenet = str(config.get("tag") or "").endswith("in1k") and getattr(module, "num_classes", 0) == len(names)
    return names if is_imagenet else ()


def _taps(module: Any, name: str) -> tuple[str, ...]:
    known = [feature["module"] for feature in getattr(module, "feature_info", None) or [] if feature.get("module")]
    modules = dict(module.named_modules())
    taps = tuple(dict.fromkeys(tap for tap in known if tap in modules))
    if not taps:
        raise ValueError(f"{name} does not say where its feature maps are: name sub-modules with taps=.")
    return taps


def _attention(module: Any) -> tuple[tuple[str, str], ...]:
    """Each block and the dropout of its attention, which in inference mode hands on what it is given."""
    blocks = getattr(module, "blocks", ())
    if not all(hasattr(getattr(block, "attn", None), "attn_drop") for block in blocks):
        return ()
    return tuple((f"blocks.{number}", f"blocks.{number}.attn.attn_drop") for number, _ in enumerate(blocks))


def _target(module: Any, name: str) -> tuple[str, str]:
    """The last block, and the normalisation before its attention."""
    blocks = getattr(module, "blocks", None)
    if blocks is None or not hasattr(blocks[-1], "norm1"):
        raise ValueError(
            f"{name} pools by a class token, and has no last block with a norm1, whose patches class activation maps "
            "weigh: it cannot be imported."
        )
    last = f"blocks.{len(blocks) - 1}"
    return last, f"{last}.norm1"
