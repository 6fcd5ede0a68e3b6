"""What `castream.import_torch` says of networks that it cannot take, and those that it takes all the same."""

from collections.abc import Callable
import importlib.util
from pathlib import Path
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import castream_jax as castream
from castream_jax.importing.named_network import open_network

pytestmark = pytest.mark.slow
SIZE = 16
NORMALISED = {"image_size": SIZE, "mean": (0.5,) * 3, "std": (0.25,) * 3}


@pytest.fixture(scope="module")
def network(torch: ModuleType) -> Callable[..., Any]:
    """Makes a network of two stages whose images, last map and logits go through functions."""
    if importlib.util.find_spec("torchax") is None:  # importing it is what `torchax_operations` is careful about
        pytest.skip("the extra castream_jax[torch] is not installed")
    nn = torch.nn

    class Small(nn.Module):
        def __init__(self, first, last, logits, inplace):
            super().__init__()
            self.stage1 = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace))
            self.stage2 = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(inplace))
            self.fc, self.functions = nn.Linear(6, 5), (first, last, logits)

        def forward(self, x):
            first, last, logits = self.functions
            return logits(self.fc(last(self.stage2(self.stage1(first(x)))).mean((2, 3))))

    def make(first=lambda x: x, last=lambda x: x, logits=lambda y: y, inplace=False):
        torch.manual_seed(0)
        return Small(first, last, logits, inplace).eval()

    return make


def refused(module: Any, **options: Any) -> str:
    with pytest.raises(ValueError, match=r"\S") as raised:
        castream.import_torch(module, **NORMALISED | options)
    said = str(raised.value)
    assert "nan" not in said
    return said


def test_an_image_must_be_computed_by_itself(network, torch):
    """Images, or the last map, from which the mean of the batch is taken; BatchNorm without statistics."""

    def centred(x):
        return x - x.mean(0, keepdim=True)

    for module in (
        network(first=centred),
        network(last=centred),
        network(first=torch.nn.BatchNorm2d(3, track_running_stats=False)),
        network(logits=lambda y: y if y.shape[0] > 1 else 2 * y),
    ):
        assert "depends on the other images of its batch: every image must be computed by itself" in refused(module)
    assert "takes no single image (IndexError: " in refused(network(logits=lambda y: y.squeeze().log_softmax(1)))
    castream.import_torch(network(logits=lambda y: y.squeeze()), **NORMALISED)  # which takes the batch of one, too


def test_logits_are_asked_for(network, torch):
    assert "gives probabilities, not logits: return what its softmax is given." in refused(
        network(logits=lambda y: y.softmax(1).view(-1, 5))
    )
    assert "return what its softmax is" in refused(network(logits=lambda y: (y.softmax(1) + (2 * y).softmax(1)) / 2))
    assert "gives probabilities, not logits: return what its sigmoid is given." in refused(
        network(logits=torch.sigmoid)
    )
    assert "gives a list: wrap it in a module that returns the logits." in refused(network(logits=lambda y: [y]))
    assert "gives a dict: wrap it" in refused(network(logits=lambda y: {"logits": y}))
    assert "gives numbers of torch.complex64" in refused(network(logits=lambda y: torch.complex(y, y)))
    castream.import_torch(network(logits=lambda y: y.log_softmax(1)), **NORMALISED)


def test_random_numbers_and_control_flow_are_told_in_one_sentence(network, torch, capfd):
    functional = torch.nn.functional
    for module in (
        network(last=lambda x: functional.dropout(x, 0.5)),
        network(first=lambda x: x + torch.randn_like(x)),
        network(logits=lambda y: y + torch.rand(1)),
    ):
        assert "uses random numbers (" in (said := refused(module))
        assert said.endswith("in inference mode: is there an F.dropout without training=self.training?")
    assert "torch.export makes no graph" in refused(network(first=lambda x: x if x.mean() > 0 else -x))
    assert "uses aten.special_airy_ai" in refused(network(first=lambda x: torch.special.airy_ai(x)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_no_plain_module_is_refused(network, torch):
    module, images = network(), torch.zeros(2, 3, SIZE, SIZE)
    assert "is a program of torch.jit: give the plain module" in refused(torch.jit.trace(module, images))
    assert "wrapped by torch.compile: give the plain module, its ._orig_mod." in refused(torch.compile(module))
    assert "sub-module '0' is wrapped by nn.DataParallel: give the plain module, its .module." in refused(
        torch.nn.Sequential(torch.nn.DataParallel(module))
    )
    module.compile()
    assert "compiled in place: import it before" in refused(module)


def test_what_a_network_writes_into_its_maps_and_images_changes_no_map(network, torch):
    module = network(
        first=lambda x: x.mul_(2), last=lambda x: x.mul_(3).add_(1), logits=lambda y: y.add_(1), inplace=True
    )
    backbone = castream.import_torch(module, taps=("stage1.0", "stage1", "stage2"), **NORMALISED)
    pixels = np.random.default_rng(0).random((3, SIZE, SIZE, 3), np.float32)
    logits = backbone.classify(castream.NativePooling()(backbone.stages(pixels))[0])
    with torch.no_grad():
        expected = module(torch.from_numpy(((pixels - 0.5) / 0.25).transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)


def test_the_cause_is_said_where_maps_or_classifier_are_others(network, torch):
    way_out = "Make what is pooled the output of a sub-module: nn.ReLU() or nn.Identity() of its own, used once."
    assert refused(network(last=lambda x: torch.relu(x - 0.1))).endswith(way_out)
    said = "'stage1' is not the classifier of Small, which is given the mean over positions of 'stage2'"
    assert said in refused(network(), classifier="stage1")
    unused = network()
    unused.aux = torch.nn.Linear(6, 5)
    assert "do not depend on the sub-module 'aux'" in refused(unused, classifier="aux")
    assert "or 'fc' is not the classifier" in refused(network(last=torch.relu), taps=("stage1",), classifier="fc")
    assert refused(network(), image_size=4).endswith(
        "Its last map, stage2, is 1 x 1 for images of 4 x 4 pixels: import it for larger images."
    )
    grey = network()
    grey.stage1[0] = torch.nn.Conv2d(1, 4, 3)
    assert "first convolution of Small takes images of another number of channels, 1," in refused(grey)
    assert "first convolution of Small" in refused(grey, taps=("stage1", "stage2"))
    pair = network(last=lambda x: x[0].transpose(1, 2)[..., None])
    pair.stage2 = torch.nn.LSTM(64, 6)
    pair.stage1.append(torch.nn.Flatten(2))
    assert "The output of 'stage2' in Small is a tuple, and no map" in refused(pair, taps=("stage2",))
    with_targets = network()
    with_targets.forward = lambda x, targets: x
    assert "does not take images alone (missing a required argument: 'targets')" in refused(with_targets)
    assert "(RuntimeError: sizes): another image_size may be its own" in refused(network(first=raises("sizes")))


def raises(reason: str) -> Callable[..., Any]:
    def function(*_):
        raise RuntimeError(reason)

    return function


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"taps": ()}, "taps names no sub-module: leave it out"),
        ({"taps": ("stage1", "stage2", "stage2")}, "taps names 'stage2' twice"),
        ({"taps": "stage2"}, "taps must be a sequence of names, got 'stage2'"),
        ({"class_names": "abcde"}, "class_names must be a sequence of names, got 'abcde'"),
        ({"class_names": (1, 2, 3, 4, 5)}, "class_names must be a sequence of names, got (1"),
        ({"class_names": 5}, "class_names must be a sequence of names, got 5"),
        ({"mean": 0.5}, "mean must be three numbers, of red, green and blue, got 0.5"),
        ({"class_names": ("a", "b", "c", "a", "e")}, "class_names names 'a' twice"),
        ({"class_names": ("a", "b", " ", "d", "e")}, "class_names has an empty name"),
        ({"image_size": -4}, "image_size must be a positive number of pixels, got -4"),
        ({"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}, "mean and std are of pixels in [0, 1]: divide by"),
        ({"std": (58.4, 57.1, 57.4)}, "mean and std are of pixels in [0, 1]: divide by 255"),
        ({"mean": (-0.5,) * 3}, "mean and std are of pixels in [0, 1], got mean (-0.5"),
    ],
)
@pytest.mark.usefixtures("unchecked_calls")
def test_arguments_are_looked_at(options, said, network):
    assert said in refused(network(), **options)


def test_pytorch_is_as_it_was_after_an_import(torch):
    """In a process of its own: a backend's name is given once. Compiled and split networks run, attention is fast."""
    script = """
import torch, castream_jax as castream
from castream_jax.importing.torchax_operations import torchax_operations
before = torch._C._get_privateuse1_backend_name(), torch.backends.mha.get_fastpath_enabled()
torchax_operations()
assert before == (torch._C._get_privateuse1_backend_name(), torch.backends.mha.get_fastpath_enabled())
module = torch.nn.Linear(2, 2)
torch.compile(module, backend="eager")(torch.zeros(1, 2))
torch.nn.DataParallel(module)(torch.zeros(2, 2))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_factories_are_told_from_their_files(torch, tmp_path: Path, monkeypatch):
    (tmp_path / "broken_nets28.py").write_text("1 / 0\n")
    (tmp_path / "some_nets28.py").write_text(
        "def fails():\n    raise ValueError('no such depth.')\n\ndef three():\n    return 3\n\n"
        "def takes(k):\n    pass\n\nclass Net:\n    pass\n\ndef gives_class():\n    return Net\n"
        "def wrong():\n    return takes()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "some_nets28.py"
    for source, said in (
        ("broken_nets28:net", r"^broken_nets28 cannot be imported \(ZeroDivisionError: division by zero\)\.$"),
        (f"{tmp_path / 'broken_nets28.py'}:net", r"division by zero \(line 1\)\.$"),
        (f"{file}:fails", r":fails fails \(ValueError: no such depth\): it must return a torch.nn.Module\.$"),
        (f"{file}:wrong", r":wrong fails \(TypeError: takes\(\) missing 1 required"),
        (f"{file}:three", r":three returns something of type int: it must return a torch.nn.Module\.$"),
        (f"{file}:gives_class", r":gives_class returns the class Net: it must return"),
        (
            f"{file}:takes",
            r":takes cannot be called without arguments \(missing a required argument: 'k'\): wrap it in",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            open_network(source)
