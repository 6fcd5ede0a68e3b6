"""Which experiments make which table and figure."""

from typing import NamedTuple


class PaperExperiment(NamedTuple):
    """One config of the paper.

    Attributes:
        name: its file in `configs/`, without suffix.
        dataset, network: as `PublishedRow` has them.
        backbone_form: where the backbone is trained first, in the paper's form alone: form of the config that does so.
        within: a larger experiment on the same backbone that trains these streams, too; if it is there or must be run
            anyway, this one needs no training of its own.
        without: forms that it does not have; tables in these are made without it.
    """

    name: str
    dataset: str
    network: str
    backbone_form: str = ""
    within: str = ""
    without: tuple[str, ...] = ()


ABLATIONS = "ablations/all"

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        PaperExperiment("imagenet/resnet18", "ImageNet", "ResNet-18", without=("sample",)),
        PaperExperiment("imagenet/resnet50", "ImageNet", "ResNet-50", within=ABLATIONS),
        PaperExperiment("imagenet/convnext_small", "ImageNet", "ConvNeXt-S", without=("small", "sample")),
        PaperExperiment("imagenet/convnext_base", "ImageNet", "ConvNeXt-B", without=("small", "sample")),
        PaperExperiment("cub/resnet50", "CUB-200-2011", "ResNet-50", "backbone", without=("sample",)),
        PaperExperiment("voc/resnet50", "Pascal VOC 2012", "ResNet-50", "backbone", without=("sample",)),
        PaperExperiment(ABLATIONS, "ImageNet", "ResNet-50"),
    )
}

# Figures over the images of another config than the one that trains.
FIGURE_DATA = {"fig3": "indoor67/resnet50"}

# The ablations of one backbone are one run: the trunk, which is nearly all the work, is shared.
TARGETS = {
    "table1": ("imagenet/resnet50", "imagenet/convnext_base"),
    "supp-table1": ("imagenet/resnet18", "imagenet/convnext_small"),
    "supp-table2": ("cub/resnet50", "voc/resnet50"),
    "supp-table3": (ABLATIONS,),
    "supp-table4": (ABLATIONS,),
    "supp-table5": (ABLATIONS,),
    "fig2": ("imagenet/resnet50",),
    "fig3": ("imagenet/resnet50",),
    "fig-identity": ("imagenet/resnet50",),
    "fig-depth": ("imagenet/resnet50",),
    "fig-curves": ("imagenet/resnet50",),
    "fig-placement": (ABLATIONS,),
}

# Figures of what was measured; the others need a model and some images, but no evaluation.
EVALUATED_FIGURES = ("fig-curves", "fig-placement")
