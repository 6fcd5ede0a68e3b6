"""What an evaluation is made of, checked before anything is written: data, model on the devices, methods, protocol."""

from collections.abc import Iterator
import dataclasses
import os

from flax import nnx
import jax
from jax.sharding import Mesh

from castream_jax.attribution.arguments import check_methods, check_probability
from castream_jax.data import Source, open_source
from castream_jax.data.content import content_digest
from castream_jax.data.image_paths import describe_skipped
from castream_jax.data.renumbered import classes_without_images, listed
from castream_jax.evaluation.identity import Identity, identify
from castream_jax.evaluation.sanity import BASELINES
from castream_jax.experiment.build import check_classes, training_class_names
from castream_jax.experiment.config import Config
from castream_jax.experiment.origins import check_data, check_training_images, config_in_place
from castream_jax.experiment.ranges import check_evaluation_fields
from castream_jax.experiment.restore import restore_checkpoint
from castream_jax.experiment.selection import ChosenCheckpoint, check_selection
from castream_jax.experiment.workdir import Workdir
from castream_jax.model import Model
from castream_jax.protocol import Protocol, get_protocol
from castream_jax.runtime.devices import device_remarks


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation that is about to run."""

    config: Config
    workdir: Workdir
    mesh: Mesh  # devices of this process
    source: Source  # the test data
    model: Model  # as trained, on every device of the mesh
    methods: tuple[str, ...]  # all that are evaluated, baselines among them
    protocol: Protocol
    identity: Identity
    checkpoint: ChosenCheckpoint
    numbered_here: bool  # classes have the numbers of the test data's own order: the training knows no names

    @property
    def batch_size(self) -> int:
        """Images per batch of this process, over all its devices."""
        return self.config.evaluation.batch_size * self.mesh.size

    def remarks(self) -> Iterator[str]:
        """What to know of the evaluation before it begins."""
        yield from device_remarks()
        if skipped := describe_skipped(getattr(self.source, "skipped", {})):
            yield skipped
        if self.numbered_here:
            names = ", ".join(f"{number} is {name!r}" for number, name in enumerate(self.source.class_names[:3]))
            yield f"the training has no names of classes: they are numbered as the test data sort ({names}, …)"
        if absent := classes_without_images(self.source):
            yield f"{len(absent)} of {len(self.source.class_names)} classes have no test image: {listed(absent)}"

    def model_on_one_device(self) -> Model:
        """The model as the first device holds it, for work that is not worth sharing. Nothing is copied."""
        graphdef, state = nnx.split(self.model)
        return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf.addressable_data(0), state))


def under(evaluation: Evaluation, protocol: str) -> Evaluation:
    """The same evaluation under a further protocol, with results of its own.

    Raises:
        ValueError: there is no such protocol, it is the first one, or the methods do not fit it.
    """
    found = get_protocol(protocol)
    if found.hash == evaluation.protocol.hash:
        raise ValueError(
            f"config.evaluation.further_protocols names {protocol!r}, which config.evaluation.protocol is: "
            "name each protocol once."
        )
    check_methods(evaluation.model, evaluation.methods, found)
    check_probability(evaluation.model, found)
    identity = {**evaluation.identity, "protocol": found.hash}
    workdir = evaluation.workdir.under(found.name)
    return dataclasses.replace(evaluation, protocol=found, identity=identity, workdir=workdir)


def open_evaluation(config: Config, workdir: str | os.PathLike[str], mesh: Mesh) -> Evaluation:
    """Opens data and model, and checks that they and the settings fit. Arguments and errors as of `evaluate`."""
    settings = config.evaluation
    check_evaluation_fields(config)
    protocol = get_protocol(settings.protocol)
    workdir, given = Workdir.at(workdir), config
    workdir.check_experiment()
    config = config_in_place(given, workdir)
    check_data(config, workdir)
    names = training_class_names(given, workdir)
    source = open_source(config.data, "test", class_names=names)
    check_classes(config, source)
    if config.data.test_fraction:  # of the training split: what is tested depends on all of it
        training = open_source(config.data, "train", class_names=source.class_names)
        check_training_images(workdir, content_digest(training, sizes=False))
    model, checkpoint = restore_checkpoint(given, workdir, mesh=mesh)
    check_selection(config, checkpoint)
    model = nnx.merge(*nnx.split(model))  # heads in the order of the devices
    methods = check_methods(model, [*settings.methods, *(BASELINES if settings.baselines else ())], protocol)
    check_probability(model, protocol)
    if settings.reference_method not in ("", *methods):
        raise ValueError(
            f"config.evaluation.reference_method is {settings.reference_method!r}, which is not evaluated "
            f"({', '.join(methods)}): add it to config.evaluation.methods, or name one of these."
        )
    identity = identify(config, source, model, methods, protocol)
    return Evaluation(config, workdir, mesh, source, model, methods, protocol, identity, checkpoint, names is None)
