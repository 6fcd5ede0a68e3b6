"""Names of heads and attribution methods as tables and pictures print them."""

REFERENCE_HEAD = "gap"  # global average pooling, which every stream is compared with

_METHOD_TITLES = {
    "cam": "CAM",
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "xgradcam": "XGrad-CAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "Eigen-CAM",
    "shapleycam": "ShapleyCAM",
    "rollout": "Attention rollout",
    "legrad": "LeGrad",
    "finercam": "Finer-CAM",
    "scorecam": "Score-CAM",
    "ablationcam": "Ablation-CAM",
    "rise": "RISE",
    "opticam": "Opti-CAM",
    "attention": "Raw attention",
    "attention_logits": "Attention logits",
    "random": "Random",
    "centre": "Centre",
    "ones": "All ones",
}
# What the numbers after a method's name count, where the title can say it.
_NUMBER_TITLES: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("attention", "attention_logits"), ("S{}", "attention head {}")
)


def head_title(head: str) -> str:
    """`gap` is written GAP as in the paper; streams keep the name that the experiment gave them."""
    return "GAP" if head == REFERENCE_HEAD else head


def method_title(method: str) -> str:
    """The published spelling of an attribution method, or the name itself where there is none.

    `attention:2:0` is "Raw attention, S2, attention head 0", `inverted-gradcam` "Grad-CAM, inverted".
    """
    name, *numbers = method.removeprefix("inverted-").split(":")
    templates = _NUMBER_TITLES.get(name, ())
    if name not in _METHOD_TITLES or len(numbers) > len(templates):
        return method
    counted = (template.format(number) for template, number in zip(templates, numbers, strict=False))
    return ", ".join([_METHOD_TITLES[name], *counted, *(["inverted"] if method.startswith("inverted-") else [])])
