"""Data: sources of labelled images, transforms of single images, loaders of batches.

Axes: `b` batch, `h` height, `w` width, `k` classes, `n` boxes. Pixels are uint8 [h, w, 3], RGB, until they are on the
device; boxes are float32 (x0, y0, x1, y1) in pixels. Loader threads must not touch the accelerator: nothing here uses
JAX but `device_augment`, which is a part of the training step.
"""

from castream_jax.data.augment import BrightnessJitter as BrightnessJitter
from castream_jax.data.augment import RandomCrop as RandomCrop
from castream_jax.data.augment import RandomFlip as RandomFlip
from castream_jax.data.augment import RandomResizedCrop as RandomResizedCrop
from castream_jax.data.batches import Batches as Batches
from castream_jax.data.batches import BatchIterator as BatchIterator
from castream_jax.data.batches import describe_unreadable as describe_unreadable
from castream_jax.data.cifar10 import Cifar10 as Cifar10
from castream_jax.data.cub import Cub as Cub
from castream_jax.data.decode import UnreadableImageError as UnreadableImageError
from castream_jax.data.digits import CanvasDigits as CanvasDigits
from castream_jax.data.from_config import evaluation_batches as evaluation_batches
from castream_jax.data.from_config import open_source as open_source
from castream_jax.data.from_config import reading_options as reading_options
from castream_jax.data.from_config import record_transforms as record_transforms
from castream_jax.data.image_folder import ImageFolder as ImageFolder
from castream_jax.data.imagenet import ImageNet as ImageNet
from castream_jax.data.indoor67 import Indoor67 as Indoor67
from castream_jax.data.loader import eval_loader as eval_loader
from castream_jax.data.loader import train_loader as train_loader
from castream_jax.data.named_sources import register_source as register_source
from castream_jax.data.source import Record as Record
from castream_jax.data.source import Source as Source
from castream_jax.data.subset import Subset as Subset
from castream_jax.data.tfds_source import TfdsSource as TfdsSource
from castream_jax.data.transforms import CenterCrop as CenterCrop
from castream_jax.data.transforms import Squash as Squash
from castream_jax.data.voc import Voc as Voc
